#!/usr/bin/env python3
"""Whether a server keeps the MUSTs of HTTP/2 (RFC 9113, 7541, 8441), seen from outside.

Without --target, dynomesh itself is started, and is asked over TCP (prior knowledge) and over TLS (ALPN).
Prints one line per check, and counts. Exit code 1: a check failed.
"""

import argparse
import os
import socket
import sys

from mesh import Mesh, home_with, venv

# The one library that is needed, to decode what the server encodes, lies in the virtual environment.
if __name__ == "__main__" and os.path.realpath(sys.prefix) != os.path.realpath(venv().parent):
    os.execv(venv() / "python", [venv() / "python", *sys.argv])

from http2 import check, compression_checks, connection_checks, flood_checks  # noqa: E402, F401
from http2 import frame_checks, message_checks, tunnel_checks, window_checks  # noqa: E402, F401
from http2.target import Target  # noqa: E402


def main():
    options = parse_options()
    checks = [it for it in check.CHECKS if options.filter in str(it)]
    if options.list:
        for it in checks:
            print(f"{it}: {it.says}")
        return 0
    if not checks:
        print(f"no check is named like {options.filter!r}")
        return 1
    if options.target:
        return 0 if run_all(checks, [target_of(options)]) else 1
    with DeafServer() as deaf, start_mesh(deaf) as mesh:
        common = {"host": "127.0.0.1", "authority": "echo.localhost", "websocket_authority": "ws.localhost"}
        common.update(deaf_authority="deaf.localhost", pid=mesh.process.pid, patience_s=options.patience)
        targets = [Target(port=mesh.port, **common), Target(port=mesh.https_port, tls=True, **common)]
        return 0 if run_all(checks, targets) else 1


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", metavar="HOST:PORT", help="a server that runs already")
    parser.add_argument("--tls", action="store_true", help="with --target: it speaks TLS")
    parser.add_argument("--authority", help="who answers /, /download/N and POSTs there (default: HOST:PORT)")
    parser.add_argument("--websocket", metavar="AUTHORITY", help="who takes WebSockets at /chat there")
    parser.add_argument("--deaf", metavar="AUTHORITY", help="whose server there never reads")
    parser.add_argument("--pid", type=int, help="the process whose memory is watched")
    parser.add_argument("--patience", type=float, default=10, help="seconds that a server may take (default: 10)")
    parser.add_argument("--filter", default="", help="only checks that have this in their section or name")
    parser.add_argument("--list", action="store_true", help="say what is checked, and end")
    return parser.parse_args()


def target_of(options):
    host, _, port = options.target.rpartition(":")
    return Target(
        host, int(port), options.tls, options.authority or options.target, options.websocket, options.deaf,
        options.pid, options.patience,
    )


def run_all(checks, targets):
    """Runs each check against each target. True: none failed."""
    counts = dict.fromkeys(check.VERDICTS, 0)
    for target in targets:
        print(f"== {target.host}:{target.port} over {'TLS' if target.tls else 'TCP'}", flush=True)
        for it in checks:
            outcome = check.run(it, target)
            counts[outcome.verdict] += 1
            said = f": {outcome.reason}" if outcome.reason else ""
            print(f"{outcome.verdict:7} {it} ({outcome.seconds:.2f} s){said}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return counts["FAILED"] == 0


def start_mesh(deaf):
    home = home_with({"echo": "echo", "ws": "websocket"})
    (home / "echo/Procfile").write_text("web: node server.js\n")
    (home / "ws/Procfile").write_text(f"web: {venv()}/python server.py\n")
    apps = "".join(f'[apps.{name}]\ndir = "{home / name}"\n' for name in ["echo", "ws"])
    apps += f'[apps.deaf]\ndynos = ["127.0.0.1:{deaf.port}"]\n'
    mesh = Mesh(home, apps, default_app="echo", https=True)
    try:
        for name in ["echo", "ws"]:
            mesh.wait_for_dynos(name, 1)
    except Exception:
        mesh.stop()
        raise
    return mesh


class DeafServer:
    """A server whose connections the kernel accepts, and from which nobody ever reads."""

    def __enter__(self):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        return self

    def __exit__(self, *_):
        self.socket.close()


if __name__ == "__main__":
    sys.exit(main())
