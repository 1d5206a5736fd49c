#!/usr/bin/env python3
"""Clients that others wrote, against the router: curl, ab, h2load, Python's, a WebSocket library, slowhttptest;
and rsyslog behind it."""

import asyncio
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import unittest

from load import ab, h2load
from log_drains import LogDrains
from mesh import Mesh, home_with, venv
from slow_clients import SlowClients

TEN_MB = 10_000_000


class OutsideClients(SlowClients, LogDrains, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        home = home_with({"echo": "echo", "static": "static", "ws": "websocket"})
        (home / "echo/Procfile").write_text("web: node server.js\n")
        (home / "static/Procfile").write_text("web: ./start\n")
        (home / "ws/Procfile").write_text(f"web: {venv()}/python server.py\n")
        names = ["echo", "static", "ws"]
        apps = [f'[apps.{name}]\ndir = "{home / name}"\nformation = {{ web = 2 }}\n' for name in names]
        apps[0] += cls.drain(home)
        apps.append('[apps.static.timeouts]\ndyno_keepalive = "0s"\n')
        cls.mesh = Mesh(home, "\n".join(apps), default_app="echo")
        cls.addClassCleanup(cls.mesh.stop)
        for name in names:
            cls.mesh.wait_for_dynos(name, 2)
        cls.url = f"http://127.0.0.1:{cls.mesh.port}"
        cls.slow_url = cls.url
        cls.payload = os.urandom(TEN_MB)
        cls.file = home / "payload"
        cls.file.write_bytes(cls.payload)

    # ---- curl --------------------------------------------------------------------------------------------

    def curl(self, *options):
        """curl's standard output and its -v."""
        command = ["curl", "-sv", "--max-time", "30", *options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done.stdout, done.stderr.decode(errors="replace")

    def assert_whole(self, answer):
        seen = json.loads(answer)
        self.assertEqual((seen["bytes"], seen["sha256"]), (TEN_MB, hashlib.sha256(self.payload).hexdigest()))
        return seen

    def test_curl_speaks_http_1_1(self):
        answer, spoken = self.curl(f"http://echo.localhost:{self.mesh.port}/a?b=c")
        seen = json.loads(answer)
        self.assertEqual((seen["method"], seen["url"]), ("GET", "/a?b=c"))
        self.assertEqual(seen["headers"]["host"], f"echo.localhost:{self.mesh.port}")
        self.assertIn("HTTP/1.1 200", spoken)

    def test_curl_speaks_http_1_0(self):
        answer, spoken = self.curl("--http1.0", f"{self.url}/old")
        self.assertEqual(json.loads(answer)["url"], "/old")
        self.assertRegex(spoken, r"HTTP/1\.[01] 200")

    def test_head_has_the_length_and_no_body(self):
        answer, _ = self.curl("--head", f"{self.url}/download/12345")
        self.assertRegex(answer.decode().lower(), r"content-length: 12345\r\n")
        self.assertTrue(answer.endswith(b"\r\n\r\n"))

    def test_upload_waits_for_100_continue(self):
        answer, spoken = self.curl("-H", "Expect: 100-continue", "--data-binary", f"@{self.file}", f"{self.url}/up")
        seen = self.assert_whole(answer)
        self.assertIn("HTTP/1.1 100 Continue", spoken)
        self.assertNotIn("expect", seen["headers"])

    def test_chunked_upload_arrives_whole(self):
        chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]
        answer, _ = self.curl(*chunked, "--data-binary", f"@{self.file}", f"{self.url}/up")
        self.assert_whole(answer)

    def test_download_arrives_whole(self):
        answer, _ = self.curl(f"{self.url}/download/{TEN_MB}")
        self.assertTrue(answer == expected_download(TEN_MB), f"{len(answer)} bytes, or others than were sent")

    def test_the_path_goes_through_as_it_is(self):
        path = "/a/../b//c/./%2e%2e/%41?x=%20&&y"
        answer, _ = self.curl("--path-as-is", self.url + path)
        self.assertEqual(json.loads(answer)["url"], path)

    def test_connections_are_kept_between_requests(self):
        answer, _ = self.curl("-w", "\n%{num_connects}\n", f"{self.url}/1", f"{self.url}/2", f"{self.url}/3")
        self.assertEqual(re.findall(rb"^\d$", answer, re.MULTILINE), [b"1", b"0", b"0"])

    # ---- load generators ---------------------------------------------------------------------------------

    def test_ab_keeps_its_http_1_0_connections(self):
        outcome = ab(f"{self.url}/", "static.localhost", 3000)
        self.assertEqual((outcome.requests, outcome.failures), (3000, []), outcome.text)

    def test_h2load_over_http_1_1(self):
        outcome = h2load(f"{self.url}/", 3000)
        self.assertEqual((outcome.requests, outcome.failures), (3000, []), outcome.text)

    def test_connections_that_come_and_go_leave_no_memory_behind(self):
        # One connection of the client and one to the dyno for each request.
        come_and_go = lambda: ab(f"{self.url}/", "static.localhost", 6000, keep=False)
        come_and_go()
        before = self.mesh.rss_kib()
        self.assertEqual(come_and_go().failures, [])
        # A connection takes about 1 KiB: if it were kept somewhere, these would be 6 MiB.
        self.assertLess(self.mesh.rss_kib() - before, 2 * 1024)

    # ---- Python ------------------------------------------------------------------------------------------

    def test_every_method_on_one_connection(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.mesh.port, timeout=10)
        self.addCleanup(connection.close)
        chunks = iter([b"one", b"two" * 1000, b"three"])
        asked = [("GET", None), ("POST", b"x" * 70_000), ("PUT", chunks), ("DELETE", None), ("PATCH", b"")]
        asked += [("OPTIONS", None), ("PROPFIND", None)]
        connection.connect()
        first = connection.sock
        for method, body in asked:
            # http.client chunks an iterator by itself, where no length is given.
            connection.request(method, "/method", body)
            answer = connection.getresponse()
            seen = json.loads(answer.read())
            self.assertEqual((answer.status, seen["method"]), (200, method))
            self.assertIs(connection.sock, first, f"the connection was lost after {method}")

    def test_websocket_messages_come_back_byte_for_byte(self):
        client = [f"{venv()}/python", __file__, "websocket-client", str(self.mesh.port)]
        done = subprocess.run(client, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)


def expected_download(size):
    piece = (b"dynomesh " * 7282)[:65536]
    return (piece * (size // len(piece) + 1))[:size]


async def websocket_client(port):
    """Runs in the virtual environment: the library is not there otherwise."""
    import websockets

    url = f"ws://ws.localhost:{port}/chat"
    options = {"host": "127.0.0.1", "port": port, "max_size": 8 << 20}

    async with websockets.connect(url, subprotocols=["echo.v1", "echo.v2"], **options) as socket:
        assert socket.subprotocol in ("echo.v1", "echo.v2"), socket.subprotocol
        for size in [0, 1, 125, 126, 65535, 65536, 1 << 20]:
            message = os.urandom(size)
            await socket.send(message)
            assert await socket.recv() == message, f"{size} bytes came back changed"
        for text in ["", "dyno", "żółw 🦖" * 5000]:
            await socket.send(text)
            assert await socket.recv() == text
        await asyncio.wait_for(await socket.ping(b"are you there"), 5)
        await socket.send("close 4001 as asked")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4001, "as asked"), socket.close_code

    async def one_of_many(number):
        async with websockets.connect(url, subprotocols=["echo.v1"], compression=None, **options) as socket:
            for turn in range(20):
                message = f"{number}:{turn}:" + "x" * number * 100
                await socket.send(message)
                assert await socket.recv() == message

    await asyncio.gather(*(one_of_many(number) for number in range(50)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["websocket-client"]:
        asyncio.run(websocket_client(int(sys.argv[2])))
    else:
        unittest.main(verbosity=2)
