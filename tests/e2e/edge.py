#!/usr/bin/env python3
"""The edge with clients that others wrote: HTTPS and HTTP/2 by curl, nghttp2, httpx, openssl and Chromium; WebSockets
on each way in; certificates that change under load.
"""

import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import edge_clients
from load import h2load, oha, wrk
from mesh import Mesh, Server, home_with, program, venv, wait_until
from pki import Authority, openssl
from slow_clients import SlowClients

TEN_MB = 10_000_000
HANDSHAKE_S = 2
CLIENTS = Path(edge_clients.__file__)


def start_mesh(home, extra="", router="workers = 2"):
    """Four apps behind TLS, on two workers whatever the machine has."""
    (home / "echo/Procfile").write_text("web: node server.js\n")
    (home / "static/Procfile").write_text("web: ./start\n")
    (home / "ws/Procfile").write_text(f"web: {venv()}/python server.py\n")
    (home / "grpc/Procfile").write_text(f"web: {venv()}/python server.py\n")
    names = ["echo", "static", "ws", "grpc"]
    apps = "".join(f'[apps.{name}]\ndir = "{home / name}"\nformation = {{ web = 2 }}\n' for name in names)
    apps += "http2_to_dyno = true\n"  # the last one's
    mesh = Mesh(home, apps + extra, default_app="echo", https=True, router=router)
    try:
        for name in names:
            mesh.wait_for_dynos(name, 2)
    except Exception:
        mesh.stop()
        raise
    return mesh


def edge_home():
    return home_with({"echo": "echo", "static": "static", "ws": "websocket", "grpc": "grpc"})


def run_client(*arguments):
    """One of edge_clients' commands: its standard output."""
    command = [f"{venv()}/python", CLIENTS, *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Edge(SlowClients, unittest.TestCase):
    """Out of the box: certificates by the local CA."""

    @classmethod
    def setUpClass(cls):
        home = edge_home()
        cls.mesh = start_mesh(home, f'[router.timeouts]\nhandshake = "{HANDSHAKE_S}s"\n')
        cls.addClassCleanup(cls.mesh.stop)
        cls.ca = cls.mesh.ca()
        cls.port = cls.mesh.https_port
        cls.url = f"https://echo.localhost:{cls.port}"
        cls.bare_url = f"https://127.0.0.1:{cls.port}"
        cls.slow_url = cls.bare_url
        cls.payload = os.urandom(TEN_MB)
        cls.file = home / "payload"
        cls.file.write_bytes(cls.payload)

    # ---- curl --------------------------------------------------------------------------------------------

    def curl(self, *options, code=0):
        command = ["curl", "-sv", "--max-time", "60", "--cacert", self.ca, *options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        return done.stdout, done.stderr.decode(errors="replace")

    def ask(self, version, *options):
        """What the dyno saw of a request; the version is checked."""
        answer, _ = self.curl(*options, "-w", "\n%{http_version} %{http_code}")
        body, _, said = answer.rpartition(b"\n")
        self.assertEqual(said.decode(), f"{version} 200")
        return json.loads(body)

    def test_curl_speaks_http_1_1_over_tls(self):
        seen = self.ask("1.1", "--http1.1", f"{self.url}/a?b=c")
        self.assertEqual((seen["method"], seen["url"]), ("GET", "/a?b=c"))
        forwarded = [seen["headers"][f"x-forwarded-{name}"] for name in ("proto", "port", "for")]
        self.assertEqual(forwarded, ["https", str(self.port), "127.0.0.1"])

    def test_curl_speaks_http_2_over_tls(self):
        seen = self.ask("2", "--http2", f"{self.url}/a?b=c")
        self.assertEqual((seen["method"], seen["url"]), ("GET", "/a?b=c"))
        self.assertEqual(seen["headers"]["host"], f"echo.localhost:{self.port}")
        forwarded = [seen["headers"][f"x-forwarded-{name}"] for name in ("proto", "port", "for")]
        self.assertEqual(forwarded, ["https", str(self.port), "127.0.0.1"])

    def test_curl_speaks_http_2_by_prior_knowledge(self):
        url = f"http://echo.localhost:{self.mesh.port}/known"
        seen = self.ask("2", "--http2-prior-knowledge", url)
        self.assertEqual((seen["url"], seen["headers"]["x-forwarded-proto"]), ("/known", "http"))

    def test_curl_without_alpn_gets_http_1_1(self):
        self.ask("1.1", "--no-alpn", self.url)

    def test_curl_with_tls_1_2_at_most(self):
        self.ask("2", "--tls-max", "1.2", self.url)
        self.ask("1.1", "--tls-max", "1.2", "--http1.1", self.url)

    def test_a_client_without_the_ca_does_not_trust_it(self):
        # 60: the peer's certificate cannot be verified.
        self.curl("--cacert", "/etc/ssl/certs/ca-certificates.crt", self.url, code=60)

    def test_an_upload_arrives_whole(self):
        for version, option in [("2", "--http2"), ("1.1", "--http1.1")]:
            seen = self.ask(version, option, "--data-binary", f"@{self.file}", f"{self.url}/up")
            whole = (TEN_MB, hashlib.sha256(self.payload).hexdigest())
            self.assertEqual((seen["bytes"], seen["sha256"]), whole)

    def test_an_upload_waits_for_100_continue(self):
        expect = ["-H", "Expect: 100-continue", "--data-binary", f"@{self.file}"]
        _, spoken = self.curl("--http2", *expect, f"{self.url}/up")
        self.assertIn("HTTP/2 100", spoken)
        self.assertIn("HTTP/2 200", spoken)

    def test_a_download_arrives_whole(self):
        whole = (b"dynomesh " * 7282)[:65536]
        whole = (whole * (TEN_MB // len(whole) + 1))[:TEN_MB]
        for option in ["--http2", "--http1.1"]:
            answer, _ = self.curl(option, f"{self.url}/download/{TEN_MB}")
            self.assertTrue(answer == whole, f"{option}: {len(answer)} bytes, or others than were sent")

    def test_head_has_the_length_and_no_body(self):
        answer, _ = self.curl("--http2", "--head", f"{self.url}/download/12345")
        self.assertRegex(answer.decode().lower(), r"content-length: 12345\r\n")
        self.assertTrue(answer.endswith(b"\r\n\r\n"))

    def test_connections_are_kept_between_requests(self):
        for option in ["--http2", "--http1.1"]:
            urls = [f"{self.url}/{number}" for number in range(3)]
            answer, _ = self.curl(option, "-w", "\n%{num_connects}\n", *urls)
            self.assertEqual(re.findall(rb"^\d$", answer, re.MULTILINE), [b"1", b"0", b"0"])

    def test_the_line_of_a_request_says_how_it_came(self):
        self.curl("--http2", f"{self.url}/the-line-of-this")
        line = lambda: re.search(r".*path=\"/the-line-of-this\".*", self.mesh.access_log.read_text())
        wait_until("its line is written", line)
        self.assertRegex(line()[0], r" protocol=http2\.0 tls=true ")

    # ---- nghttp2's, httpx, grpc --------------------------------------------------------------------------

    def test_nghttp_gets_a_whole_answer(self):
        for url in [self.bare_url, f"http://127.0.0.1:{self.mesh.port}"]:
            command = [program("nghttp"), "--no-verify-peer", f"{url}/download/{TEN_MB}"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
            self.assertEqual((done.returncode, len(done.stdout)), (0, TEN_MB), done.stderr)

    def test_nghttp_gets_many_answers_on_a_connection(self):
        command = [program("nghttp"), "-n", "--stat", "--no-verify-peer", "-m", "50", f"{self.bare_url}/a"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertEqual(len(re.findall(r" 200 +\S+ /a$", done.stdout, re.MULTILINE)), 50, done.stdout + done.stderr)

    def assert_all_2xx(self, outcome, requests):
        self.assertEqual((outcome.requests, outcome.failures), (requests, []), outcome.text)

    def test_h2load_over_http_2(self):
        errors_before = len(self.mesh.errors())
        for url in [self.bare_url, f"http://127.0.0.1:{self.mesh.port}"]:
            self.assert_all_2xx(h2load(f"{url}/", 6000, connections=20, streams=10), 6000)
            self.assert_all_2xx(h2load(f"{url}/download/50000", 600, connections=5, streams=50), 600)
        self.assertEqual(self.mesh.errors()[errors_before:], [])

    def test_h2load_over_http_1_1_and_tls(self):
        self.assert_all_2xx(h2load(f"{self.bare_url}/", 3000), 3000)

    def test_httpx_over_http_2(self):
        # It asks the system for addresses, which may not know the names below localhost.
        run_client("httpx", f"https://localhost:{self.port}", self.ca)

    def test_grpc_goes_through_to_a_dyno_that_speaks_http_2(self):
        run_client("grpc", self.port, self.ca)

    # ---- openssl -----------------------------------------------------------------------------------------

    def s_client(self, *options):
        """One connection of openssl's, with a request, so that what comes after the handshake is read too."""
        request = "GET / HTTP/1.1\r\nHost: echo.localhost\r\nConnection: close\r\n\r\n"
        connect = ["s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", "echo.localhost", "-ign_eof"]
        return openssl([*connect, "-CAfile", self.ca, "-verify_return_error", *options], request)

    def test_openssl_agrees_on_tls_1_2_and_1_3(self):
        for option, version in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")]:
            said = self.s_client(option)
            self.assertRegex(said, rf"New, {re.escape(version)}, Cipher is ")
            self.assertIn("Verify return code: 0 (ok)", said)
            self.assertIn("HTTP/1.1 200 OK", said)

    def test_openssl_resumes_on_either_worker(self):
        with tempfile.TemporaryDirectory() as directory:
            for option in ["-tls1_2", "-tls1_3"]:
                session = f"{directory}/session{option}"
                self.assertIn("New, ", self.s_client(option, "-sess_out", session))
                # Two workers: that ten of ten meet the one that gave the ticket is one in a thousand.
                for _ in range(10):
                    said = self.s_client(option, "-sess_in", session, "-sess_out", session)
                    self.assertIn("Reused, ", said)
                    self.assertIn("HTTP/1.1 200 OK", said)

    def test_names_of_the_mesh_have_certificates(self):
        for name in ["echo.localhost", "ws.localhost", "localhost"]:
            said = self.s_client("-servername", name, "-verify_hostname", name)
            self.assertIn("Verification: OK", said)
            self.assertIn(f"Verified peername: {name}", said)

    # ---- Chromium ----------------------------------------------------------------------------------------

    def test_chromium_loads_a_page_and_opens_a_websocket(self):
        if not program("chromium"):
            self.skipTest("chromium is not installed")
        page = CHROMIUM_PAGE % {"url": f"wss://ws.localhost:{self.port}/chat"}
        (self.mesh.dir / "static/public/edge.html").write_text(page)
        seen = self.dump_dom(f"https://static.localhost:{self.port}/edge.html")
        found = re.search(r'id="out">(.*?)</p>', seen, re.DOTALL)
        self.assertTrue(found, seen)
        self.assertEqual(json.loads(found[1]), {"protocol": "h2", "echo": "hello, 100000", "subprotocol": "echo.v1"})

    def dump_dom(self, url):
        """The page as it is when it has loaded, in a browser with nothing but our CA to remember."""
        with tempfile.TemporaryDirectory() as home:
            database = f"{home}/.pki/nssdb"
            os.makedirs(database)
            for arguments in [["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "dynomesh", "-i", self.ca]]:
                command = [program("certutil"), "-d", f"sql:{database}", *arguments]
                subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=60)
            quiet = ["first-run", "sandbox"]
            disabled = ["gpu", "quic", "background-networking", "component-update", "sync"]
            flags = ["--headless", f"--user-data-dir={home}/data"]
            flags += [f"--no-{it}" for it in quiet] + [f"--disable-{it}" for it in disabled]
            command = [program("chromium"), *flags, "--dump-dom", url]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                env={**os.environ, "HOME": home},
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

    # ---- WebSockets --------------------------------------------------------------------------------------

    def test_a_websocket_says_the_same_on_every_way_in(self):
        direct = Server(f"{venv()}/python server.py", self.mesh.dir / "ws")
        self.addCleanup(direct.stop)
        wanted = json.loads(run_client("converse", "direct", direct.port))
        self.assertGreater(len(wanted), 10)
        for kind, port in [("plain", self.mesh.port), ("tls", self.port), ("http2", self.port)]:
            with self.subTest(kind):
                self.assertEqual(json.loads(run_client("converse", kind, port, self.ca)), wanted)

    def test_a_library_of_websockets_over_tls(self):
        run_client("websockets", self.port, self.ca)

    # ---- slow clients ------------------------------------------------------------------------------------

    def test_stalled_handshakes_are_closed(self):
        for first in [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)]:
            with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
                start = time.monotonic()
                connection.sendall(first)
                while connection.recv(1024):
                    pass
                took = time.monotonic() - start
                self.assertGreater(took, HANDSHAKE_S - 0.1)
                # Late by a loaded machine, not by another timer: the next one is a minute.
                self.assertLess(took, HANDSHAKE_S + 15)


# The document of the frame is open for as long as the WebSocket has something to say, and the page has not loaded
# until it is closed: so the browser waits, and nobody guesses for how long.
CHROMIUM_PAGE = """<!doctype html>
<p id="out"></p><iframe id="wait"></iframe>
<script>
const wait = document.getElementById("wait").contentDocument;
wait.open();
const protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
const said = [];
const end = (more) => {
  document.getElementById("out").textContent = JSON.stringify({ protocol, echo: said.join(", "), ...more });
  wait.close();
};
const socket = new WebSocket("%(url)s", ["echo.v1"]);
socket.onopen = () => { socket.send("hello"); socket.send("x".repeat(100000)); };
socket.onerror = () => end({ error: "the WebSocket failed" });
socket.onmessage = ({ data }) => {
  said.push(data.length > 100 ? data.length : data);
  if (said.length === 2) end({ subprotocol: socket.protocol });
};
</script>
"""


class OwnCertificates(unittest.TestCase):
    """Certificates that the file names, one of which changes."""

    def setUp(self):
        home = edge_home()
        self.authority = Authority(home / "authority")
        self.certs = home / "certs"
        self.certs.mkdir()
        self.serial = self.renew("echo", ["echo.localhost", "*.echo.localhost"])
        self.other = self.renew("ws", ["ws.localhost"])
        self.mesh = start_mesh(home, f'[[certs]]\ndir = "{self.certs}"\n')
        self.addCleanup(self.mesh.stop)
        self.port = self.mesh.https_port

    def renew(self, name, names):
        """Puts a pair with a new certificate where the old one was, as tools for that do: each file in one step."""
        pair = [(self.certs / f"{name}.{it}", self.certs.parent / f"new.{it}") for it in ("key", "pem")]
        (key, new_key), (certificate, new_certificate) = pair
        serial = self.authority.sign(names, new_certificate, new_key)
        new_key.rename(key)
        new_certificate.rename(certificate)
        return serial

    def served(self, name):
        """The serial number of the certificate that a client gets who asks for this name."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            with context.wrap_socket(connection, server_hostname=name) as secured:
                return int(secured.getpeercert()["serialNumber"], 16)

    def test_certificates_are_chosen_by_name(self):
        self.assertEqual(self.served("echo.localhost"), self.serial)
        self.assertEqual(self.served("a.echo.localhost"), self.serial)
        self.assertEqual(self.served("ws.localhost"), self.other)
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.served("static.localhost")

    def test_changed_files_are_served_without_a_reload(self):
        serial = self.renew("echo", ["echo.localhost"])
        wait_until("the new certificate is served", lambda: self.served("echo.localhost") == serial)
        self.assertEqual(self.served("ws.localhost"), self.other)

    def test_a_pair_that_does_not_fit_leaves_the_old_one(self):
        refused = self.mesh.total("dynomesh_reloads_total", result="refused")
        self.authority.sign(["echo.localhost"], self.certs / "echo.pem", self.certs.parent / "elsewhere.key")
        self.mesh.reload()
        self.assertGreater(self.mesh.total("dynomesh_reloads_total", result="refused"), refused)
        self.assertEqual(self.served("echo.localhost"), self.serial)

    def test_certificates_change_under_load_and_nothing_breaks(self):
        url = f"https://127.0.0.1:{self.port}/"
        seconds = 6
        websockets = [edge_clients.open_websocket(*way) for way in self.ways()]
        for websocket in websockets:
            self.addCleanup(websocket.connection.close)
        outcomes, loads = {}, [
            ("h1", lambda: wrk(url, f"127.0.0.1:{self.port}", seconds)),
            ("h2", lambda: h2load(url, 0, connections=8, streams=10, seconds=seconds)),
        ]
        if program("oha"):
            # A connection for each request: handshakes meet every moment of the swap.
            loads.append(("handshakes", lambda: oha(url, f"127.0.0.1:{self.port}", 2000, keep=False)))
        threads = [threading.Thread(target=lambda it=it: outcomes.update({it[0]: it[1]()})) for it in loads]
        for thread in threads:
            thread.start()
        for turn in range(4):
            serial = self.renew("echo", ["echo.localhost"])
            self.mesh.reload()
            self.assertEqual(self.served("echo.localhost"), serial)
            for websocket in websockets:
                self.say(websocket, f"turn {turn}")
            time.sleep(seconds / 8)
        for thread in threads:
            thread.join()
        for websocket in websockets:
            self.say(websocket, "still the same connection")
        self.assertEqual(sorted(outcomes), sorted(name for name, _ in loads), "a load generator did not end well")
        for name, outcome in outcomes.items():
            self.assertEqual(outcome.failures, [], f"{name}: {outcome.text}")
            self.assertGreater(outcome.requests, 100)
        self.assertEqual(self.mesh.errors(), [])
        print(f"  {', '.join(f'{name} {it.requests}' for name, it in outcomes.items())} requests, 0 broken", flush=True)

    def ways(self):
        """Each way in for a WebSocket that needs no library."""
        ca = self.authority.certificate
        return [("plain", self.mesh.port, None), ("tls", self.port, ca), ("tls", self.port, ca)]

    def say(self, websocket, text):
        websocket.send(edge_clients.frame(edge_clients.TEXT, text.encode()))
        self.assertEqual(edge_clients.read_frame(websocket)[2:], text.encode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
