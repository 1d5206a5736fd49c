"""The certificate that every contestant shows: P-256, made once per run."""

import functools
import subprocess
import tempfile
from pathlib import Path


def chain():
    """The file of the certificate."""
    return _folder() / "certificate.pem"


def key():
    """The file of its key."""
    return _folder() / "key.pem"


def chain_and_key():
    """Both in one file."""
    return _folder() / "both.pem"


def _folder():
    return Path(_made().name)


@functools.cache
def _made():
    """A folder that ends with this program."""
    made = tempfile.TemporaryDirectory(prefix="compare-certificate-")
    folder = Path(made.name)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        stderr=subprocess.DEVNULL,
        timeout=20,
    )
    (folder / "both.pem").write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    return made
