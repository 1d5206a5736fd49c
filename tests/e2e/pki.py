"""Certificates for the end-to-end checks, made by openssl: an authority, and what it signs."""

import itertools
import subprocess

SERIALS = itertools.count(0x1000)


class Authority:
    """Somebody else's CA, in a directory of its own."""

    def __init__(self, directory):
        directory.mkdir()
        self.directory = directory
        self.certificate = directory / "ca.pem"
        self.key = directory / "ca.key"
        make = [*NEW_KEY, "-x509", "-days", "30", "-subj", "/CN=end-to-end checks"]
        openssl(["req", *make, "-keyout", self.key, "-out", self.certificate])

    def sign(self, names, certificate, key):
        """Writes a certificate for these names, and its new key. Returns the serial number."""
        serial, request = next(SERIALS), self.directory / "request.pem"
        openssl(["req", *NEW_KEY, "-subj", f"/CN={names[0]}", "-keyout", key, "-out", request])
        extensions = self.directory / "extensions"
        alternatives = ",".join(f"DNS:{name}" for name in names)
        extensions.write_text(f"subjectAltName={alternatives}\nbasicConstraints=critical,CA:FALSE\n")
        signer = ["-CA", self.certificate, "-CAkey", self.key, "-set_serial", str(serial), "-days", "30"]
        openssl(["x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate])
        return serial


NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(arguments, text=""):
    """Standard output and error of one openssl command that must succeed."""
    done = subprocess.run(
        ["openssl", *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    assert done.returncode == 0, f"openssl {arguments} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
