"""Each type of frame: its stream, its length, its values. RFC 9113 §6; windows are in `window_checks`."""

from .check import Failed, check
from .client import Client
from .frames import (
    MAX_WINDOW,
    Code,
    Flag,
    Kind,
    Setting,
    block,
    frame,
    padded,
    priority_payload,
    settings_payload,
    u32,
)


def offend(target, kind, flags, stream, payload, *codes):
    """One frame as the first after the prefaces, and the connection error that it must be."""
    with Client(target) as client:
        client.send_frame(kind, flags, stream, payload)
        client.expect_connection_error(*codes)


def with_a_stream(target, kind, flags, payload, *codes):
    """One frame on an open stream, and the stream error that it must be."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.send_frame(kind, flags, stream, payload)
        client.expect_stream_error(stream, *codes)


# ---- 6.1: DATA ---------------------------------------------------------------------------------------------


@check("9113 §6.1")
def data_on_stream_0(target):
    """DATA belongs to a stream: on 0 it is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.DATA, 0, 0, b"content", Code.PROTOCOL_ERROR)


@check("9113 §6.1")
def padded_data(target):
    """Padding is no content: the length that is said is that of the rest."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("content-length", "8")], end=False)
        client.send_frame(Kind.DATA, Flag.PADDED, stream, padded(b"half", 255))
        client.send_frame(Kind.DATA, Flag.PADDED, stream, padded(b"", 10))
        client.send_frame(Kind.DATA, Flag.PADDED | Flag.END_STREAM, stream, padded(b"half", 0))
        client.expect_answer(stream)


@check("9113 §6.1")
def data_with_too_much_padding(target):
    """Padding as long as the payload or longer is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.send_frame(Kind.DATA, Flag.PADDED | Flag.END_STREAM, stream, padded(b"body", 0, said=5))
        client.expect_connection_error(Code.PROTOCOL_ERROR)


@check("9113 §6.1")
def padded_data_without_a_byte(target):
    """PADDED DATA without the length of its padding: FRAME_SIZE_ERROR (§4.2) or PROTOCOL_ERROR."""
    with_a_stream(target, Kind.DATA, Flag.PADDED, b"", Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


# ---- 6.2: HEADERS ------------------------------------------------------------------------------------------


@check("9113 §6.2")
def headers_on_stream_0(target):
    """HEADERS belongs to a stream: on 0 it is a connection error PROTOCOL_ERROR."""
    whole = block([(":method", "GET"), (":scheme", "http"), (":path", "/")])
    offend(target, Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 0, whole, Code.PROTOCOL_ERROR)


@check("9113 §6.2")
def padded_headers(target):
    """HEADERS may be padded, with and without a priority."""
    with Client(target) as client:
        flags = Flag.END_HEADERS | Flag.END_STREAM | Flag.PADDED
        stream = client.new_stream()
        client.send_frame(Kind.HEADERS, flags, stream, padded(block(client.fields()), 100))
        client.expect_answer(stream)
        stream = client.new_stream()
        payload = padded(priority_payload(0) + block(client.fields()), 3)
        client.send_frame(Kind.HEADERS, flags | Flag.PRIORITY, stream, payload)
        client.expect_answer(stream)


@check("9113 §6.2")
def headers_with_too_much_padding(target):
    """Padding that leaves no room for the block's beginning is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        octets = block(client.fields())
        flags = Flag.END_HEADERS | Flag.END_STREAM | Flag.PADDED
        client.send_frame(Kind.HEADERS, flags, client.new_stream(), padded(octets, 0, said=len(octets) + 1))
        client.expect_connection_error(Code.PROTOCOL_ERROR)


@check("9113 §6.2")
def headers_too_short_for_their_priority(target):
    """HEADERS with PRIORITY and fewer than five bytes: a connection error FRAME_SIZE_ERROR (or PROTOCOL_ERROR)."""
    flags = Flag.END_HEADERS | Flag.END_STREAM | Flag.PRIORITY
    offend(target, Kind.HEADERS, flags, 1, b"\0\0\0", Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


# ---- 6.3: PRIORITY -----------------------------------------------------------------------------------------


@check("9113 §6.3")
def a_priority_of_stream_0(target):
    """PRIORITY on stream 0 is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.PRIORITY, 0, 0, priority_payload(1), Code.PROTOCOL_ERROR)


@check("9113 §6.3")
def a_priority_of_the_wrong_length(target):
    """PRIORITY of other than five bytes is a stream error FRAME_SIZE_ERROR."""
    with_a_stream(target, Kind.PRIORITY, 0, b"\0\0\0\0", Code.FRAME_SIZE_ERROR)


# ---- 6.4: RST_STREAM ---------------------------------------------------------------------------------------


@check("9113 §6.4")
def a_reset_of_stream_0(target):
    """RST_STREAM on stream 0 is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.RST_STREAM, 0, 0, u32(Code.CANCEL), Code.PROTOCOL_ERROR)


@check("9113 §6.4")
def a_reset_of_the_wrong_length(target):
    """RST_STREAM of other than four bytes is a connection error FRAME_SIZE_ERROR."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.send_frame(Kind.RST_STREAM, 0, stream, b"\0\0\0")
        client.expect_connection_error(Code.FRAME_SIZE_ERROR)


@check("9113 §7")
def a_reset_with_an_unknown_code(target):
    """Unknown error codes have no special effect."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.reset(stream, 0xDEADBEEF)
        client.expect_alive()


# ---- 6.5: SETTINGS -----------------------------------------------------------------------------------------


@check("9113 §6.5")
def settings_on_a_stream(target):
    """SETTINGS is about the connection: on a stream it is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.SETTINGS, 0, 1, b"", Code.PROTOCOL_ERROR)


@check("9113 §6.5")
def an_acknowledgement_with_a_payload(target):
    """SETTINGS with ACK and a payload is a connection error FRAME_SIZE_ERROR."""
    offend(target, Kind.SETTINGS, Flag.ACK, 0, settings_payload([(0xBABA, 1)]), Code.FRAME_SIZE_ERROR)


@check("9113 §6.5")
def settings_of_the_wrong_length(target):
    """SETTINGS whose length is no multiple of six is a connection error FRAME_SIZE_ERROR."""
    offend(target, Kind.SETTINGS, 0, 0, b"\0\1\0", Code.FRAME_SIZE_ERROR)


@check("9113 §6.5.2")
def enable_push_of_2(target):
    """SETTINGS_ENABLE_PUSH of other than 0 or 1 is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.SETTINGS, 0, 0, settings_payload([(Setting.ENABLE_PUSH, 2)]), Code.PROTOCOL_ERROR)


@check("9113 §6.5.2")
def an_initial_window_beyond_the_maximum(target):
    """SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1 is a connection error FLOW_CONTROL_ERROR."""
    pairs = [(Setting.INITIAL_WINDOW_SIZE, MAX_WINDOW + 1)]
    offend(target, Kind.SETTINGS, 0, 0, settings_payload(pairs), Code.FLOW_CONTROL_ERROR)


@check("9113 §6.5.2")
def a_max_frame_size_below_the_minimum(target):
    """SETTINGS_MAX_FRAME_SIZE below 2^14 is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.SETTINGS, 0, 0, settings_payload([(Setting.MAX_FRAME_SIZE, 2**14 - 1)]), Code.PROTOCOL_ERROR)


@check("9113 §6.5.2")
def a_max_frame_size_beyond_the_maximum(target):
    """SETTINGS_MAX_FRAME_SIZE above 2^24-1 is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.SETTINGS, 0, 0, settings_payload([(Setting.MAX_FRAME_SIZE, 2**24)]), Code.PROTOCOL_ERROR)


@check("9113 §6.5.2")
def settings_at_their_bounds(target):
    """The least and the greatest value of each parameter is taken."""
    for value in [0, MAX_WINDOW]:
        with Client(target) as client:
            client.send_settings([(Setting.INITIAL_WINDOW_SIZE, value), (Setting.HEADER_TABLE_SIZE, value)])
            client.expect_alive()
    for value in [2**14, 2**24 - 1]:
        with Client(target) as client:
            client.send_settings([(Setting.MAX_FRAME_SIZE, value), (Setting.MAX_CONCURRENT_STREAMS, 0)])
            client.expect_answer(client.request("GET", "/download/100000"))


@check("9113 §6.5.2")
def unknown_settings_are_ignored(target):
    """Parameters that nobody knows are ignored."""
    with Client(target) as client:
        client.send_settings([(0xBABA, 0xFFFFFFFF), (0, 0), (0xFFFF, 1)])
        client.expect_alive()


@check("9113 §6.5.3")
def each_settings_frame_is_acknowledged(target):
    """Each SETTINGS frame gets one acknowledgement, as soon as possible."""
    with Client(target) as client:
        for number in range(5):
            client.send_settings([(0xBABA, number)] * number)
        client.expect_nothing_else()
        if client.unacknowledged:
            raise Failed(f"{len(client.unacknowledged)} of 5 were not acknowledged")


@check("9113 §6.5.3")
def settings_are_applied_in_order(target):
    """Values are processed in the order in which they stand: of two for the same parameter the last one holds."""
    with Client(target, replenish=False) as client:
        client.send_settings([(Setting.INITIAL_WINDOW_SIZE, 100_000), (Setting.INITIAL_WINDOW_SIZE, 7)])
        client.read_until(lambda: not client.unacknowledged, "the acknowledgement")
        stream = client.request("GET", "/download/100")
        client.read_until(lambda: len(client.streams[stream].body) == 7, "7 bytes")
        client.expect_nothing_else()


@check("7541 §4.2")
def a_header_table_of_nothing(target):
    """After SETTINGS_HEADER_TABLE_SIZE of 0 is acknowledged, no answer needs a dynamic table."""
    with Client(target) as client:
        client.expect_answer(client.request())
        client.send_settings([(Setting.HEADER_TABLE_SIZE, 0)])
        client.read_until(lambda: not client.unacknowledged, "the acknowledgement")
        for _ in range(3):
            client.expect_answer(client.request())


# ---- 6.6: PUSH_PROMISE -------------------------------------------------------------------------------------


@check("9113 §8.4")
def a_push_promise_from_a_client(target):
    """Clients cannot push: a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.send_frame(Kind.PUSH_PROMISE, Flag.END_HEADERS, stream, u32(2) + block(client.fields()))
        client.expect_connection_error(Code.PROTOCOL_ERROR)


# ---- 6.7: PING ---------------------------------------------------------------------------------------------


@check("9113 §6.7")
def a_ping_comes_back(target):
    """PING is acknowledged with the same eight bytes, also while a request waits for its body."""
    with Client(target) as client:
        client.request("POST", end=False)
        for octets in [bytes(8), b"\xff" * 8, b"12345678"]:
            client.send_frame(Kind.PING, 0, 0, octets)
            client.read_until(lambda: client.last_pong == octets, "the same bytes")


@check("9113 §6.7")
def an_acknowledged_ping_is_not_answered(target):
    """PING with ACK gets no answer."""
    with Client(target) as client:
        client.send_frame(Kind.PING, Flag.ACK, 0, b"no reply")
        client.send(frame(Kind.PING, 0, 0, b"do reply"))
        client.read_until(lambda: client.last_pong is not None, "the acknowledgement of the other PING")
        if client.last_pong == b"no reply":
            raise Failed("it was answered")


@check("9113 §6.7")
def a_ping_on_a_stream(target):
    """PING is about the connection: on a stream it is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.PING, 0, 1, b"12345678", Code.PROTOCOL_ERROR)


@check("9113 §6.7")
def a_ping_of_the_wrong_length(target):
    """PING of other than eight bytes is a connection error FRAME_SIZE_ERROR."""
    offend(target, Kind.PING, 0, 0, b"1234567", Code.FRAME_SIZE_ERROR)
    offend(target, Kind.PING, 0, 0, b"123456789", Code.FRAME_SIZE_ERROR)


# ---- 6.8: GOAWAY -------------------------------------------------------------------------------------------


@check("9113 §6.8")
def a_goaway_on_a_stream(target):
    """GOAWAY is about the connection: on a stream it is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.GOAWAY, 0, 1, u32(0) + u32(Code.NO_ERROR), Code.PROTOCOL_ERROR)


@check("9113 §6.8")
def a_goaway_that_is_too_short(target):
    """GOAWAY without room for its two numbers is a connection error FRAME_SIZE_ERROR (§4.2)."""
    offend(target, Kind.GOAWAY, 0, 0, u32(0) + b"\0", Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


@check("9113 §6.8")
def a_client_that_goes_away_gets_its_answers(target):
    """After a client's GOAWAY (with words that mean nothing to us) what it has asked is still answered."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.send_frame(Kind.GOAWAY, 0, 0, u32(0) + u32(Code.NO_ERROR) + b"so long")
        client.data(stream, b"the rest", end=True)
        client.expect_answer(stream)


# ---- 6.9: WINDOW_UPDATE as a frame -------------------------------------------------------------------------


@check("9113 §6.9")
def a_window_update_of_the_wrong_length(target):
    """WINDOW_UPDATE of other than four bytes is a connection error FRAME_SIZE_ERROR."""
    offend(target, Kind.WINDOW_UPDATE, 0, 0, b"\0\0\1", Code.FRAME_SIZE_ERROR)


@check("9113 §6.9")
def a_window_update_of_nothing_for_the_connection(target):
    """An increment of 0 for the connection is a connection error PROTOCOL_ERROR."""
    offend(target, Kind.WINDOW_UPDATE, 0, 0, u32(0), Code.PROTOCOL_ERROR)


@check("9113 §6.9")
def a_window_update_of_nothing_for_a_stream(target):
    """An increment of 0 for a stream is a stream error PROTOCOL_ERROR."""
    with_a_stream(target, Kind.WINDOW_UPDATE, 0, u32(0), Code.PROTOCOL_ERROR)


@check("9113 §6.9")
def the_reserved_bit_of_a_window_update(target):
    """The bit before the increment means nothing when received."""
    with Client(target) as client:
        client.send_frame(Kind.WINDOW_UPDATE, 0, 0, u32(1 << 31 | 10))
        client.window += 10
        client.expect_alive()


# ---- 6.10: CONTINUATION ------------------------------------------------------------------------------------


@check("9113 §6.10")
def a_continuation_on_stream_0(target):
    """CONTINUATION on stream 0 is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, client.new_stream(), block(client.fields()))
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, 0)
        client.expect_connection_error(Code.PROTOCOL_ERROR, probe=False)


@check("9113 §6.10")
def a_continuation_of_another_stream(target):
    """A block goes on with CONTINUATION of the same stream; of another it is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        octets = block(client.fields())
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, client.new_stream(), octets[:10])
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, client.new_stream(), octets[10:])
        client.expect_connection_error(Code.PROTOCOL_ERROR, probe=False)


@check("9113 §6.10")
def a_continuation_of_a_finished_block(target):
    """CONTINUATION after END_HEADERS is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, stream, block([("x-more", "yes")]))
        client.expect_connection_error(Code.PROTOCOL_ERROR)


@check("9113 §6.10")
def a_continuation_of_a_finished_continuation(target):
    """CONTINUATION after a CONTINUATION with END_HEADERS is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        stream = client.new_stream()
        client.send_frame(Kind.HEADERS, 0, stream, block(client.fields("POST")))
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, stream)
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, stream)
        client.expect_connection_error(Code.PROTOCOL_ERROR)


@check("9113 §6.10")
def a_continuation_after_data(target):
    """CONTINUATION after DATA is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.data(stream, b"content")
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, stream)
        client.expect_connection_error(Code.PROTOCOL_ERROR)
