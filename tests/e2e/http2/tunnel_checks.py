"""WebSockets over HTTP/2: extended CONNECT, RFC 8441."""

import os

from .check import Failed, Skipped, check
from .client import Client
from .frames import Setting

TEXT, CLOSE = 0x1, 0x8


def tunnel_client(target, authority=None):
    """A client of a server that announces extended CONNECT and has somebody who takes WebSockets, or of another."""
    if target.websocket_authority is None:
        raise Skipped("no server there that takes WebSockets")
    client = Client(target, authority=authority or target.websocket_authority)
    if client.server_settings.get(Setting.ENABLE_CONNECT_PROTOCOL) != 1:
        client.close()
        raise Failed("SETTINGS_ENABLE_CONNECT_PROTOCOL of 1 was not announced")
    return client


def connect_fields(client, protocol="websocket"):
    pseudo = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", client.target.scheme), (":path", "/chat")]
    fields = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "echo.v1"), ("origin", "http://localhost")]
    return [*pseudo, (":authority", client.authority), *fields]


def opened(client):
    """The stream of a WebSocket that is open."""
    stream = client.open(connect_fields(client), end=False)
    state = client.streams[stream]
    client.read_until(lambda: state.status is not None or state.reset is not None, "the WebSocket to open")
    if state.status != 200:
        raise Failed(f"status {state.status}, reset {state.reset}")
    return stream


def masked(opcode, payload):
    """A frame as clients of WebSockets send it (RFC 6455 §5.2)."""
    mask = os.urandom(4)
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + mask + bytes(it ^ mask[at % 4] for at, it in enumerate(payload))


def expect_message(client, stream, payload):
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    wanted = bytes([0x80 | TEXT]) + length + payload
    state = client.streams[stream]
    client.read_until(lambda: len(state.body) >= len(wanted) or state.ended, "the message to come back")
    if bytes(state.body[: len(wanted)]) != wanted:
        raise Failed(f"came back as {bytes(state.body[:40])!r}")
    del state.body[: len(wanted)]


@check("8441 §5")
def a_websocket_carries_messages(target):
    """A WebSocket opens with 200, and messages go both ways, also where DATA frames cut them."""
    with tunnel_client(target) as client:
        stream = opened(client)
        state = client.streams[stream]
        if state.value("sec-websocket-protocol") != "echo.v1":
            raise Failed(f"the subprotocol is {state.value('sec-websocket-protocol')}")
        client.data(stream, masked(TEXT, b"hello"))
        expect_message(client, stream, b"hello")
        for octet in masked(TEXT, b"by the byte"):
            client.data(stream, bytes([octet]))
        expect_message(client, stream, b"by the byte")
        client.data(stream, masked(TEXT, b"l" * 10_000))
        expect_message(client, stream, b"l" * 10_000)


@check("8441 §5")
def the_handshake_of_http_1_1_stays_there(target):
    """Sec-WebSocket-Key and -Accept have no place in HTTP/2: the answer does not show them."""
    with tunnel_client(target) as client:
        state = client.streams[opened(client)]
        shown = [name for name, _ in state.fields if name in ("sec-websocket-accept", "sec-websocket-key")]
        if shown:
            raise Failed(f"the answer has {shown}")


@check("8441 §5")
def a_websocket_ends_with_its_stream(target):
    """A close frame is answered, and then the server ends its side with END_STREAM."""
    with tunnel_client(target) as client:
        stream = opened(client)
        client.data(stream, masked(CLOSE, (1000).to_bytes(2, "big")))
        state = client.streams[stream]
        client.read_until(lambda: state.ended or state.reset is not None, "END_STREAM")
        if not state.ended or state.body[:1] != bytes([0x80 | CLOSE]):
            raise Failed(f"{bytes(state.body)!r}, ended: {state.ended}, reset: {state.reset}")
        client.data(stream, end=True)
        client.expect_alive()


@check("8441 §5")
def a_websocket_may_be_reset(target):
    """RST_STREAM is a WebSocket's TCP reset, and harms nothing else on the connection."""
    with tunnel_client(target) as client:
        lost, kept = opened(client), opened(client)
        client.reset(lost)
        client.data(kept, masked(TEXT, b"still here"))
        expect_message(client, kept, b"still here")
        client.expect_alive()


@check("8441 §5")
def a_websocket_and_requests_share_a_connection(target):
    """Requests go on beside a WebSocket."""
    with tunnel_client(target) as client:
        stream = opened(client)
        for turn in range(5):
            client.expect_any_answer(client.request("GET", "/chat"))
            client.data(stream, masked(TEXT, b"turn %d" % turn))
            expect_message(client, stream, b"turn %d" % turn)


@check("8441 §4")
def a_protocol_without_a_path(target):
    """With :protocol, :scheme and :path must be there too."""
    for name in (":scheme", ":path"):
        with tunnel_client(target) as client:
            fields = [it for it in connect_fields(client) if it[0] != name]
            client.expect_malformed(client.open(fields, end=False))


@check("8441 §4")
def a_protocol_of_another_method(target):
    """:protocol belongs to CONNECT; with any other method it is malformed."""
    with tunnel_client(target) as client:
        client.expect_malformed(client.open([(":protocol", "websocket"), *client.fields()]))


@check("8441 §4")
def a_protocol_that_nobody_knows(target):
    """An unknown :protocol is refused: an answer of 4xx or 5xx, or a stream error."""
    with tunnel_client(target) as client:
        expect_refused_tunnel(client, client.open(connect_fields(client, "carrier-pigeon"), end=False))


@check("8441 §5")
def a_websocket_for_who_takes_none(target):
    """Where nobody takes WebSockets, the answer says so: it is no 2xx, and the connection goes on."""
    with tunnel_client(target, target.authority) as client:
        expect_refused_tunnel(client, client.open(connect_fields(client), end=False))


def expect_refused_tunnel(client, stream):
    """An answer that opens nothing, or a reset; and the connection goes on."""
    state = client.streams[stream]
    client.read_until(lambda: state.status is not None or state.reset is not None, "a refusal")
    if state.status is not None and state.status < 300:
        raise Failed(f"answered {state.status}")
    if state.reset is None:
        client.reset(stream)
    client.expect_alive()
