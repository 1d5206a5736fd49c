#!/usr/bin/env python3
"""Clients of the edge in Python, each a command: they run in the virtual environment, where their libraries are.

usage: edge_clients.py httpx URL CA | websockets PORT CA | grpc PORT CA | converse {direct|plain|tls|http2} PORT [CA]
"""

import asyncio
import hashlib
import json
import os
import queue
import socket
import ssl
import sys

MIB = 1 << 20
PATIENCE_S = 60


def main():
    kind, *arguments = sys.argv[1:]
    if kind == "httpx":
        asyncio.run(httpx_client(*arguments))
    elif kind == "websockets":
        asyncio.run(websockets_client(int(arguments[0]), trust(arguments[1])))
    elif kind == "grpc":
        grpc_client(*arguments)
    elif kind == "converse":
        json.dump(converse(open_websocket(*arguments)), sys.stdout)
    else:
        sys.exit(__doc__)


def trust(ca):
    return ssl.create_default_context(cafile=ca)


# ---- httpx -------------------------------------------------------------------------------------------------


async def httpx_client(url, ca):
    """A hundred requests at once on one connection of HTTP/2, bodies both ways, a cookie jar."""
    import httpx

    body = os.urandom(MIB)
    async with httpx.AsyncClient(http2=True, http1=False, verify=trust(ca), timeout=PATIENCE_S) as client:
        client.cookies.update({"one": "1", "two": "2"})
        answer = await client.post(f"{url}/upload?a=b", content=body)
        seen = answer.json()
        assert answer.http_version == "HTTP/2", answer.http_version
        assert (seen["method"], seen["url"], seen["bytes"]) == ("POST", "/upload?a=b", MIB), seen
        assert seen["sha256"] == hashlib.sha256(body).hexdigest()
        assert seen["headers"]["cookie"] == "one=1; two=2", seen["headers"]
        assert seen["headers"]["x-forwarded-proto"] == "https", seen["headers"]

        async def one_of_many(number):
            answer = await client.get(f"{url}/download/{number * 1000}")
            assert (answer.status_code, len(answer.content)) == (200, number * 1000)

        await asyncio.gather(*(one_of_many(number) for number in range(100)))
        async with client.stream("GET", f"{url}/download/{10 * MIB}") as answer:
            received = 0
            async for piece in answer.aiter_bytes():
                received += len(piece)
            assert received == 10 * MIB, received


# ---- a library of WebSockets -------------------------------------------------------------------------------


async def websockets_client(port, context):
    """The library's own client over TLS: compression, sizes around each length field, pings, a close code."""
    import websockets

    url = f"wss://ws.localhost:{port}/chat"
    options = {"host": "127.0.0.1", "port": port, "max_size": 8 << 20, "ssl": context}
    async with websockets.connect(url, subprotocols=["echo.v1"], **options) as connection:
        assert connection.subprotocol == "echo.v1", connection.subprotocol
        for size in [0, 1, 125, 126, 65535, 65536, MIB]:
            message = os.urandom(size)
            await connection.send(message)
            assert await connection.recv() == message, f"{size} bytes came back changed"
        await connection.send(["in ", "three ", "fragments"])
        assert await connection.recv() == "in three fragments"
        await asyncio.wait_for(await connection.ping(b"are you there"), PATIENCE_S)
        await connection.send("close 4001 as asked")
        await connection.wait_closed()
        assert (connection.close_code, connection.close_reason) == (4001, "as asked"), connection.close_code


# ---- gRPC --------------------------------------------------------------------------------------------------


def grpc_client(port, ca):
    """Each kind of call, large messages, metadata in trailers, a failure with its words."""
    import grpc

    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options = [("grpc.ssl_target_name_override", "grpc.localhost"), ("grpc.max_receive_message_length", 8 * MIB)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        method = lambda kind, name: getattr(channel, kind)(f"/e2e.Bytes/{name}")
        message = os.urandom(4 * MIB - 100)
        answer, call = method("unary_unary", "Echo").with_call(message, PATIENCE_S, [("x-asked", "this")])
        assert answer == message
        assert ("x-seen", "this") in [tuple(it) for it in call.trailing_metadata()], call.trailing_metadata()
        counted = list(method("unary_stream", "Count")(b"1000", PATIENCE_S))
        assert counted == [b"%d" % number for number in range(1000)], len(counted)
        assert method("stream_unary", "Add")((b"%d" % number for number in range(1000)), PATIENCE_S) == b"499500"
        asked = queue.SimpleQueue()
        answers = method("stream_stream", "Converse")(iter(asked.get, None), PATIENCE_S)
        for turn in range(100):
            # The answer before the next question: both ways are open at once.
            asked.put(b"turn %d" % turn)
            assert next(answers) == b"TURN %d" % turn
        asked.put(None)
        assert list(answers) == []
        try:
            said = method("unary_unary", "Fail")(b"", PATIENCE_S)
        except grpc.RpcError as error:
            said = error.code(), error.details()
        assert said == (grpc.StatusCode.FAILED_PRECONDITION, "as asked: żółw"), said


# ---- the same conversation, byte for byte, on whatever carries it ------------------------------------------

TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9
FIN = 0x80


def frame(opcode, payload=b"", fin=FIN):
    """A frame as clients send it (RFC 6455 §5.2), always with the same mask."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    mask = b"mask" * (size // 4 + 1)
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")
    return bytes([fin | opcode]) + length + b"mask" + masked


# What is said, and how many frames are the answer to it.
SCRIPT = [
    (frame(TEXT, b"hello"), 1),
    (frame(TEXT), 1),
    (frame(TEXT, "żółw 🦖".encode() * 1000), 1),
    (frame(BINARY, bytes(range(256))), 1),
    (frame(BINARY, bytes(65535)), 1),
    (frame(BINARY, b"\xa5" * 65536), 1),
    (frame(BINARY, b"dynomesh" * (MIB // 8)), 1),
    # The PING in between is answered at once, the message when it is whole.
    (frame(TEXT, b"in ", 0) + frame(0, b"two ", 0) + frame(PING, b"?") + frame(0, b"fragments"), 2),
    (frame(PING, b"are you there"), 1),
    (frame(PING), 1),
    (frame(TEXT, b"close 4001 as asked"), 1),
]


def converse(transport):
    """Says all of SCRIPT. Returns what came back, frame by frame, and what came after our answer to its close."""
    replies = []
    for octets, answers in SCRIPT:
        transport.send(octets)
        for _ in range(answers):
            reply = read_frame(transport)
            replies.append([len(reply), reply[:40].hex(), hashlib.sha256(reply).hexdigest()])
    transport.send(frame(CLOSE, (4001).to_bytes(2, "big")))
    replies.append(transport.read_to_the_end().hex())
    return replies


def read_frame(transport):
    """One frame of a server, unmasked, as it was on the wire."""
    head = transport.read(2)
    size = head[1] & 0x7F
    if size >= 126:
        more = transport.read(2 if size == 126 else 8)
        head, size = head + more, int.from_bytes(more, "big")
    return head + transport.read(size)


def open_websocket(kind, port, ca=None):
    connection = socket.create_connection(("127.0.0.1", int(port)), PATIENCE_S)
    if kind in ("tls", "http2"):
        context = trust(ca)
        context.set_alpn_protocols(["h2"] if kind == "http2" else ["http/1.1"])
        connection = context.wrap_socket(connection, server_hostname="ws.localhost")
    return OverHttp2(connection) if kind == "http2" else OverHttp1(connection)


class Transport:
    """Bytes of a WebSocket, both ways."""

    received = b""

    def read(self, count):
        while len(self.received) < count:
            octets = self.receive()
            assert octets, f"the WebSocket ended; {self.received!r} is left"
            self.received += octets
        octets, self.received = self.received[:count], self.received[count:]
        return octets

    def read_to_the_end(self):
        while octets := self.receive():
            self.received += octets
        return self.received


class OverHttp1(Transport):
    """After an upgrade of HTTP/1.1 (RFC 6455 §4)."""

    def __init__(self, connection):
        self.connection = connection
        self.send(
            b"GET /chat HTTP/1.1\r\nHost: ws.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: echo.v1\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        status, *fields = head.decode().lower().split("\r\n")
        assert status.startswith("http/1.1 101"), head
        # RFC 6455 §1.3 computes this one for this key.
        assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in fields, head
        assert "sec-websocket-protocol: echo.v1" in fields, head

    def send(self, octets):
        self.connection.sendall(octets)

    def receive(self):
        return self.connection.recv(65536)


class OverHttp2(Transport):
    """On a stream of extended CONNECT (RFC 8441), by somebody else's HTTP/2."""

    def __init__(self, connection):
        import h2.connection
        import h2.settings

        assert connection.selected_alpn_protocol() == "h2", connection.selected_alpn_protocol()
        self.connection = connection
        self.http2 = h2.connection.H2Connection()
        self.status, self.is_over, self.pieces = None, False, []
        self.http2.initiate_connection()
        announced = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
        while not self.http2.remote_settings.get(announced):
            self.turn()
        self.stream = self.http2.get_next_available_stream_id()
        pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/chat")]
        pseudo += [(":authority", "ws.localhost")]
        fields = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "echo.v1")]
        self.http2.send_headers(self.stream, [*pseudo, *fields])
        while self.status is None:
            self.turn()
        assert self.status == "200", self.status
        assert self.subprotocol == "echo.v1", self.subprotocol

    def turn(self):
        """Sends what is to be sent, and waits for what comes."""
        self.flush()
        octets = self.connection.recv(65536)
        assert octets, "the connection ended"
        for event in self.http2.receive_data(octets):
            self.take(event)
        self.flush()

    def flush(self):
        self.connection.sendall(self.http2.data_to_send())

    def take(self, event):
        import h2.events

        if isinstance(event, h2.events.ResponseReceived):
            fields = {name.decode(): value.decode() for name, value in map(as_bytes, event.headers)}
            self.status, self.subprotocol = fields[":status"], fields.get("sec-websocket-protocol")
        elif isinstance(event, h2.events.DataReceived):
            self.pieces.append(event.data)
            self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.is_over = True
        elif isinstance(event, h2.events.StreamReset) and self.is_over and event.error_code == 0:
            pass  # RFC 9113 §8.1: after a whole answer, for what we might still have said.
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            raise AssertionError(f"{event}")

    def send(self, octets):
        while octets:
            window = self.http2.local_flow_control_window(self.stream)
            size = min(window, self.http2.max_outbound_frame_size, len(octets))
            if size <= 0:
                self.turn()
                continue
            self.http2.send_data(self.stream, octets[:size])
            octets = octets[size:]
            self.flush()

    def receive(self):
        while not self.pieces and not self.is_over:
            self.turn()
        return self.pieces.pop(0) if self.pieces else b""


def as_bytes(field):
    return tuple(it if isinstance(it, bytes) else it.encode() for it in field)


if __name__ == "__main__":
    main()
