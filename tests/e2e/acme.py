#!/usr/bin/env python3
"""Automatic certificates from a server that others wrote: Pebble, Let's Encrypt's own for tests, which looks at each name
where its DNS says that it is: at our ports on loopback.
"""

import json
import os
import socket
import ssl
import subprocess
import threading
import unittest
import urllib.request

from mesh import Mesh, free_ports, home_with, program, wait_until
from pki import Authority

NAMES = ["shop.example.test", "www.example.test"]


@unittest.skipUnless(program("pebble"), "pebble is missing (apt-get install pebble)")
class Acme(unittest.TestCase):
    def setUp(self):
        self.home = home_with({"echo": "echo"})
        (self.home / "echo/Procfile").write_text("web: node server.js\n")
        self.authority = Authority(self.home / "authority")
        self.dns = Dns()
        self.addCleanup(self.dns.stop)

    def test_names_are_proved_in_a_handshake(self):
        with Started(self.home, self.authority, self.dns) as (mesh, pebble):
            self.becomes_certified(mesh)
            for name in NAMES:
                with trusting(mesh, pebble.root, name) as connection:
                    connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                    self.assertEqual(connection.recv(12), b"HTTP/1.1 200")

    def test_names_are_proved_by_http(self):
        with Started(self.home, self.authority, self.dns, https=False) as (mesh, _):
            self.becomes_certified(mesh)

    def test_a_certificate_outlives_a_restart(self):
        with Started(self.home, self.authority, self.dns) as (mesh, pebble):
            self.becomes_certified(mesh)
            before = serial(mesh, pebble.root)
            mesh.process.kill()
            mesh.process.wait()
            mesh.start()
            self.assertEqual(serial(mesh, pebble.root), before)

    def becomes_certified(self, mesh):
        wait_until("both names have a certificate", lambda: mesh.total("dynomesh_acme_domains", state="OK") == 2)


class Started:
    """A mesh, and a Pebble that looks for it where it is; then the mesh is told of Pebble."""

    def __init__(self, home, authority, dns, https=True):
        app = f'[apps.echo]\ndir = "{home / "echo"}"\ndomains = {json.dumps(NAMES)}\n'
        self.mesh = Mesh(home, app, default_app="echo", https=https)
        try:
            self.pebble = Pebble(home, authority, dns, self.mesh)
            directory = f"https://localhost:{self.pebble.port}/dir"
            acme = f'directory = "{directory}"\nagree_to_terms = true\nca_file = "{authority.certificate}"\n'
            self.mesh.write(f"{app}[acme]\n{acme}")
            self.mesh.reload()
        except Exception:
            self.mesh.stop()
            raise

    def __enter__(self):
        return self.mesh, self.pebble

    def __exit__(self, *_):
        self.pebble.stop()
        self.mesh.stop()


class Pebble:
    def __init__(self, home, authority, dns, mesh):
        self.port, management_port = free_ports(2)
        certificate, key = home / "pebble.pem", home / "pebble.key"
        authority.sign(["localhost"], certificate, key)
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{management_port}",
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": mesh.port,
            "tlsPort": mesh.https_port,
        }
        file = home / "pebble.json"
        file.write_text(json.dumps({"pebble": config}))
        # No waits before it looks, and a nonce in fifty is refused, as one may be at any time (RFC 8555 §6.5).
        nice = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "2"}
        with open(home / "pebble.log", "wb") as log:
            self.process = subprocess.Popen(
                [program("pebble"), "-config", file, "-dnsserver", f"127.0.0.1:{dns.port}"],
                env=nice, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )
        self.root = home / "pebble-root.pem"
        context = ssl.create_default_context(cafile=authority.certificate)
        url = f"https://localhost:{management_port}/roots/0"

        def has_root():
            try:
                self.root.write_bytes(urllib.request.urlopen(url, context=context, timeout=5).read())
                return True
            except OSError:
                return False

        try:
            wait_until("pebble answers", has_root)
        except Exception:
            self.stop()
            raise

    def stop(self):
        self.process.kill()
        self.process.wait()


class Dns:
    """Says of every name that it is 127.0.0.1, and of every other question that there is no answer."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            query, client = self.socket.recvfrom(4096)
            if not query:
                return
            # RFC 1035 §4.1: the name ends with an empty label, and its type and class follow.
            end = query.index(b"\0", 12) + 5
            question, is_address = query[12:end], query[end - 4 : end - 2] == b"\0\x01"
            answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01" if is_address else b""
            counts = b"\0\x01" + (b"\0\x01" if is_address else b"\0\0") + b"\0\0\0\0"
            self.socket.sendto(query[:2] + b"\x81\x80" + counts + question + answer, client)

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join()
        self.socket.close()


def trusting(mesh, root, name):
    """A connection of somebody who trusts nobody but Pebble."""
    context = ssl.create_default_context(cafile=root)
    plain = socket.create_connection(("127.0.0.1", mesh.https_port), 10)
    return context.wrap_socket(plain, server_hostname=name)


def serial(mesh, root):
    with trusting(mesh, root, NAMES[0]) as connection:
        return connection.getpeercert()["serialNumber"]


if __name__ == "__main__":
    unittest.main(verbosity=2)
