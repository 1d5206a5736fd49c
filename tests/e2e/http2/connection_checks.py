"""How a connection begins, what a frame is, and the states of streams: RFC 9113 §3 to §5."""

import ssl

from .check import Failed, Skipped, check
from .client import USUAL_SETTINGS, Client
from .frames import (
    DEFAULT_FRAME_SIZE,
    PREFACE,
    Code,
    Flag,
    Kind,
    Setting,
    block,
    frame,
    priority_payload,
    remembered,
    settings_payload,
    u32,
)
from .target import tls_context

# More than any window here lets through: such an answer stays unfinished for as long as a check wants.
LONG = "/download/1000000"


def held_back(target, **more):
    """A client with windows of nothing, so that the streams of its requests stay half-closed (remote)."""
    return Client(target, [(Setting.INITIAL_WINDOW_SIZE, 0)], replenish=False, **more)


# ---- 3: how a connection begins ----------------------------------------------------------------------------


@check("9113 §3.4")
def the_server_begins_with_settings(target):
    """The server's first frame is SETTINGS, and it acknowledges ours."""
    with Client(target) as client:
        client.expect_alive()


@check("9113 §3.4")
def a_request_may_follow_the_preface_at_once(target):
    """A client need not wait for the server's SETTINGS: a request in the segment of the preface is answered."""
    with Client(target, greet=False) as client:
        stream = client.new_stream()
        hello = frame(Kind.SETTINGS, 0, 0, settings_payload(USUAL_SETTINGS))
        client.unacknowledged.append(USUAL_SETTINGS)
        head = frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, stream, block(client.fields()))
        client.send(PREFACE + hello + head)
        client.expect_answer(stream)


@check("9113 §3.4")
def a_preface_may_come_in_single_bytes(target):
    """How the preface is cut into segments means nothing."""
    with Client(target, greet=False) as client:
        hello = frame(Kind.SETTINGS, 0, 0, settings_payload(USUAL_SETTINGS))
        client.unacknowledged.append(USUAL_SETTINGS)
        for octet in PREFACE + hello:
            client.send(bytes([octet]))
        client.expect_alive()


@check("9113 §3.4")
def empty_settings_are_a_preface(target):
    """The SETTINGS frame of the preface may be empty."""
    with Client(target, greet=False) as client:
        client.send(PREFACE)
        client.send_settings([])
        client.expect_alive()


@check("9113 §3.4")
def a_wrong_preface_ends_the_connection(target):
    """An invalid preface is a connection error; a GOAWAY may be left out."""
    with Client(target, greet=False) as client:
        client.send(PREFACE.replace(b"SM", b"XX") + frame(Kind.SETTINGS, 0, 0))
        while client.receive():
            pass


@check("9113 §3.4")
def the_first_frame_must_be_settings(target):
    """A preface that goes on with another frame than SETTINGS is invalid: a connection error PROTOCOL_ERROR."""
    with Client(target, greet=False) as client:
        client.send(PREFACE)
        client.send_frame(Kind.PING, 0, 0, b"too soon")
        client.send_settings([])
        client.expect_connection_error(Code.PROTOCOL_ERROR)


@check("9113 §9.2")
def tls_is_of_version_1_2_at_least(target):
    """HTTP/2 over TLS is over TLS 1.2 or later: a client that has nothing newer than 1.1 is refused."""
    if not target.tls:
        raise Skipped("without TLS")
    context = tls_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        target.connect(target.authority, context).close()
    except (ssl.SSLError, ConnectionError):
        return
    raise Failed("a handshake of TLS 1.1 succeeded")


# ---- 4.1: frame format -------------------------------------------------------------------------------------


@check("9113 §4.1")
def unknown_frames_are_ignored(target):
    """Frames of unknown types are ignored, on the connection as on a stream."""
    with Client(target) as client:
        client.send_frame(0xBA, 0xFF, 0, b"what is this")
        stream = client.request("POST", end=False)
        client.send_frame(0xBA, 0xFF, stream, b"and this")
        client.send_frame(0xBA, 0, stream)
        client.data(stream, b"body", end=True)
        client.expect_answer(stream)
        client.expect_alive()


@check("9113 §4.1")
def undefined_flags_are_ignored(target):
    """Flags without a meaning for a type are ignored."""
    with Client(target) as client:
        client.send_frame(Kind.PING, 0xFE, 0, b"flagged!")
        client.read_until(lambda: client.last_pong == b"flagged!", "the acknowledgement of the PING")
        client.send_frame(Kind.SETTINGS, 0xFE, 0)
        client.unacknowledged.append([])
        stream = client.new_stream()
        client.send_frame(Kind.HEADERS, 0xD2 | Flag.END_HEADERS, stream, block(client.fields("POST")))
        client.send_frame(Kind.WINDOW_UPDATE, 0xFF, stream, u32(1))
        client.streams[stream].window += 1
        client.send_frame(Kind.DATA, 0xF6 | Flag.END_STREAM, stream, b"body")
        client.expect_answer(stream)


@check("9113 §4.1")
def the_reserved_bit_is_ignored(target):
    """The bit before the stream identifier means nothing when received."""
    with Client(target) as client:
        client.send_frame(Kind.PING, 0, 1 << 31, b"reserved")
        client.read_until(lambda: client.last_pong == b"reserved", "the acknowledgement of the PING")
        stream = client.new_stream()
        flags = Flag.END_HEADERS | Flag.END_STREAM
        client.send_frame(Kind.HEADERS, flags, stream | 1 << 31, block(client.fields()))
        client.expect_answer(stream)


# ---- 4.2: frame size ---------------------------------------------------------------------------------------


def most(client):
    """The most that the server takes in one frame."""
    return client.server_settings.get(Setting.MAX_FRAME_SIZE, DEFAULT_FRAME_SIZE)


@check("9113 §4.2")
def a_frame_of_2_14_bytes_is_taken(target):
    """Every endpoint takes frames of 16,384 bytes."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.data(stream, bytes(DEFAULT_FRAME_SIZE), end=True)
        client.expect_answer(stream)


@check("9113 §4.2")
def data_beyond_the_frame_size(target):
    """DATA larger than SETTINGS_MAX_FRAME_SIZE is an error FRAME_SIZE_ERROR, of the stream at least."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.data(stream, bytes(most(client) + 1))
        client.expect_stream_error(stream, Code.FRAME_SIZE_ERROR)


@check("9113 §4.2")
def headers_beyond_the_frame_size(target):
    """HEADERS larger than SETTINGS_MAX_FRAME_SIZE is a connection error FRAME_SIZE_ERROR: it carries a field block."""
    with Client(target) as client:
        client.open(client.fields(extra=[("x-long", "y" * most(client))]))
        client.expect_connection_error(Code.FRAME_SIZE_ERROR)


@check("9113 §4.2")
def settings_beyond_the_frame_size(target):
    """SETTINGS larger than SETTINGS_MAX_FRAME_SIZE is a connection error FRAME_SIZE_ERROR."""
    with Client(target) as client:
        pairs = [(0xBABA, number) for number in range(most(client) // 6 + 1)]
        client.send_frame(Kind.SETTINGS, 0, 0, settings_payload(pairs))
        client.expect_connection_error(Code.FRAME_SIZE_ERROR)


@check("9113 §4.2")
def an_unknown_frame_beyond_the_frame_size(target):
    """The size is a matter of all frames, whatever their type."""
    with Client(target) as client:
        client.send_frame(0xBA, 0, 0, bytes(most(client) + 1))
        client.expect_connection_error(Code.FRAME_SIZE_ERROR)


# ---- 4.3: field blocks -------------------------------------------------------------------------------------


@check("9113 §4.3")
def a_field_block_that_cannot_be_decoded(target):
    """A decoding error in a field block is a connection error COMPRESSION_ERROR."""
    with Client(target) as client:
        client.open_block(block(client.fields()) + b"\x00\x7f")
        client.expect_connection_error(Code.COMPRESSION_ERROR)


@check("9113 §4.3")
def a_field_block_in_four_pieces(target):
    """A block may be cut anywhere, also into pieces without a byte."""
    with Client(target) as client:
        octets = block(client.fields(extra=[("x-cut", "here and there")]))
        stream = client.new_stream()
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, stream, octets[:1])
        client.send_frame(Kind.CONTINUATION, 0, stream, b"")
        client.send_frame(Kind.CONTINUATION, 0, stream, octets[1:20])
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, stream, octets[20:])
        client.expect_answer(stream)


@check("9113 §4.3")
def a_refused_request_still_counts_for_compression(target):
    """The block of a request that is a stream error changes the dynamic table all the same."""
    with Client(target) as client:
        bad = block([*client.fields(), ("connection", "close")]) + remembered("x-kept", "in the table")
        stream = client.open_block(bad)
        client.expect_malformed(stream)
        # 62 is the newest entry of the dynamic table.
        stream = client.open_block(block(client.fields()) + b"\xbe")
        client.expect_answer(stream)


def interrupted(target, *offence):
    with Client(target) as client:
        stream = client.new_stream()
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, stream, block(client.fields())[:10])
        kind, flags, on_other_stream, payload = offence
        client.send_frame(kind, flags, client.new_stream() if on_other_stream else 0, payload)
        client.expect_connection_error(Code.PROTOCOL_ERROR, probe=False)


@check("9113 §4.3")
def a_ping_within_a_field_block(target):
    """Nothing may come between the frames of a field block: a connection error PROTOCOL_ERROR."""
    interrupted(target, Kind.PING, 0, False, b"in there")


@check("9113 §4.3")
def a_request_within_a_field_block(target):
    """Nothing may come between the frames of a field block, not even HEADERS of another stream."""
    interrupted(target, Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, True, block([(":method", "GET")]))


@check("9113 §4.3")
def a_priority_within_a_field_block(target):
    """Nothing may come between the frames of a field block, not even what would be ignored elsewhere."""
    interrupted(target, Kind.PRIORITY, 0, True, priority_payload(0))


@check("9113 §5.5")
def an_unknown_frame_within_a_field_block(target):
    """Extension frames in the middle of a field block are a connection error PROTOCOL_ERROR."""
    interrupted(target, 0xBA, 0, False, b"extension")


@check("9113 §6.2")
def data_within_a_field_block(target):
    """HEADERS without END_HEADERS is followed by CONTINUATION; anything else is a connection error PROTOCOL_ERROR."""
    interrupted(target, Kind.DATA, 0, True, b"content")


# ---- 5.1: states -------------------------------------------------------------------------------------------


def on_an_idle_stream(target, kind, payload, *codes):
    with Client(target) as client:
        client.send_frame(kind, 0, client.new_stream(), payload)
        client.expect_connection_error(*codes)


@check("9113 §5.1")
def data_on_an_idle_stream(target):
    """DATA on an idle stream is a connection error PROTOCOL_ERROR (or, by §6.1, STREAM_CLOSED)."""
    on_an_idle_stream(target, Kind.DATA, b"content", Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)


@check("9113 §5.1")
def a_reset_of_an_idle_stream(target):
    """RST_STREAM on an idle stream is a connection error PROTOCOL_ERROR (§6.4)."""
    on_an_idle_stream(target, Kind.RST_STREAM, u32(Code.CANCEL), Code.PROTOCOL_ERROR)


@check("9113 §5.1")
def a_window_update_of_an_idle_stream(target):
    """WINDOW_UPDATE on an idle stream is a connection error PROTOCOL_ERROR."""
    on_an_idle_stream(target, Kind.WINDOW_UPDATE, u32(1), Code.PROTOCOL_ERROR)


@check("9113 §5.1")
def a_continuation_of_an_idle_stream(target):
    """CONTINUATION on an idle stream is a connection error PROTOCOL_ERROR."""
    on_an_idle_stream(target, Kind.CONTINUATION, b"", Code.PROTOCOL_ERROR)


@check("9113 §5.1")
def a_priority_of_an_idle_stream(target):
    """PRIORITY may be sent in any state of a stream, and opens none."""
    with Client(target) as client:
        client.send_frame(Kind.PRIORITY, 0, client.next_stream, priority_payload(0))
        client.send_frame(Kind.PRIORITY, 0, client.next_stream + 2, priority_payload(0))
        client.expect_alive()


@check("9113 §5.1")
def data_after_the_end_of_a_stream(target):
    """DATA on a stream that we have ended is a stream error STREAM_CLOSED."""
    with held_back(target) as client:
        stream = client.request("GET", LONG)
        client.data(stream, b"one thing more")
        client.expect_stream_error(stream, Code.STREAM_CLOSED)


@check("9113 §5.1")
def headers_after_the_end_of_a_stream(target):
    """HEADERS on a stream that we have ended is a stream error STREAM_CLOSED."""
    with held_back(target) as client:
        stream = client.request("GET", LONG)
        client.trailers(stream, [("x-late", "yes")])
        client.expect_stream_error(stream, Code.STREAM_CLOSED)


@check("9113 §5.1")
def a_continuation_after_the_end_of_a_stream(target):
    """CONTINUATION on a stream that we have ended continues nothing: PROTOCOL_ERROR (§6.10), or STREAM_CLOSED."""
    with held_back(target) as client:
        stream = client.request("GET", LONG)
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, stream, block([("x-late", "yes")]))
        client.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)


@check("9113 §5.1")
def what_may_come_after_the_end_of_a_stream(target):
    """WINDOW_UPDATE and PRIORITY on a stream that we have ended are no error, and the answer goes on."""
    with held_back(target) as client:
        stream = client.request("GET", "/download/100")
        client.send_frame(Kind.PRIORITY, 0, stream, priority_payload(0))
        client.widen(stream, 60)
        client.widen(stream, 40)
        client.expect_answer(stream)
        client.expect_alive()


@check("9113 §5.1")
def a_reset_after_the_end_of_a_stream(target):
    """RST_STREAM ends a half-closed stream: nothing of the answer comes any more, and no RST_STREAM (§5.4.2)."""
    with held_back(target) as client:
        stream = client.request("GET", LONG)
        client.widen(stream, 10)
        client.read_until(lambda: client.streams[stream].body, "the first bytes of the answer")
        client.reset(stream)
        client.expect_nothing_else()
        before = len(client.streams[stream].body)
        client.widen(0, 1000)
        client.send_frame(Kind.WINDOW_UPDATE, 0, stream, u32(1000))
        client.expect_alive()
        state = client.streams[stream]
        if state.reset is not None or len(state.body) != before:
            raise Failed(f"then came {client.said()}")


@check("9113 §5.1")
def data_on_a_stream_that_the_client_has_reset(target):
    """On a closed stream DATA is a STREAM_CLOSED error, or is discarded; it never makes an answer."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.reset(stream)
        client.data(stream, b"one thing more", end=True)
        client.expect_ignored_or(stream, Code.STREAM_CLOSED)


@check("9113 §5.1")
def headers_on_a_stream_that_the_client_has_reset(target):
    """On a closed stream HEADERS is an error (STREAM_CLOSED; by §5.1.1 PROTOCOL_ERROR), or is discarded."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.reset(stream)
        client.trailers(stream, client.fields())
        client.expect_ignored_or(stream, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


@check("9113 §5.1")
def data_on_a_finished_stream(target):
    """After question and answer, DATA on their stream is a STREAM_CLOSED error, or is discarded."""
    with Client(target) as client:
        stream = client.request()
        client.expect_answer(stream)
        client.data(stream, b"one thing more")
        client.expect_ignored_or(stream, Code.STREAM_CLOSED)


@check("9113 §5.1")
def headers_on_a_finished_stream(target):
    """An identifier is used once: HEADERS on a finished stream never make a second answer."""
    with Client(target) as client:
        stream = client.request()
        client.expect_answer(stream)
        client.trailers(stream, client.fields())
        client.expect_ignored_or(stream, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)


@check("9113 §5.1")
def what_may_come_on_a_finished_stream(target):
    """WINDOW_UPDATE (§6.9), RST_STREAM and PRIORITY may cross the end of an answer: no errors."""
    with Client(target) as client:
        stream = client.request()
        client.expect_answer(stream)
        client.widen(stream, 100)
        client.send_frame(Kind.PRIORITY, 0, stream, priority_payload(0))
        client.reset(stream)
        client.expect_alive()


# ---- 5.1.1: identifiers ------------------------------------------------------------------------------------


@check("9113 §5.1.1")
def an_even_stream_identifier(target):
    """Clients use odd identifiers: an even one is a connection error PROTOCOL_ERROR."""
    with Client(target) as client:
        client.send_frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, 2, block(client.fields()))
        client.expect_connection_error(Code.PROTOCOL_ERROR)


@check("9113 §5.1.1")
def a_lower_stream_identifier(target):
    """Identifiers grow: a lower one than before is a connection error PROTOCOL_ERROR (or STREAM_CLOSED, since
    those that were passed over are closed)."""
    with Client(target) as client:
        client.next_stream = 5
        client.expect_answer(client.request())
        client.next_stream = 3
        client.request()
        client.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)


@check("9113 §5.1.1")
def identifiers_may_be_passed_over(target):
    """Identifiers need not follow each other."""
    with Client(target) as client:
        for identifier in [1, 7, 1001, 2**31 - 1]:
            client.next_stream = identifier
            client.expect_answer(client.request())


# ---- 5.1.2: how many at once -------------------------------------------------------------------------------


@check("9113 §5.1.2")
def streams_beyond_the_limit(target):
    """More streams than SETTINGS_MAX_CONCURRENT_STREAMS are refused: a stream error REFUSED_STREAM or
    PROTOCOL_ERROR; the others go on, and the room of one that has ended can be used again."""
    with held_back(target) as client:
        limit = client.server_settings.get(Setting.MAX_CONCURRENT_STREAMS)
        if limit is None:
            raise Failed("no SETTINGS_MAX_CONCURRENT_STREAMS: there is no limit")
        if limit > 10_000:
            raise Failed(f"a limit of {limit} streams is none")
        opened = [client.request("GET", LONG) for _ in range(limit)]
        client.expect_nothing_else()
        refused = client.request("GET", LONG)
        client.expect_refusal(refused, Code.REFUSED_STREAM, Code.PROTOCOL_ERROR)
        if client.over:
            return
        lost = [it for it in opened if client.streams[it].reset is not None]
        if lost:
            raise Failed(f"streams within the limit of {limit} were reset: {lost[:5]}")
        client.reset(opened[0])
        client.expect_alive()


# ---- 5.3: priority, which RFC 9113 has deprecated ----------------------------------------------------------


@check("9113 §5.3")
def headers_with_a_priority(target):
    """HEADERS may carry a priority; it changes no answer."""
    with Client(target) as client:
        stream = client.new_stream()
        flags = Flag.END_HEADERS | Flag.END_STREAM | Flag.PRIORITY
        client.send_frame(Kind.HEADERS, flags, stream, priority_payload(1 << 31, 255) + block(client.fields()))
        client.expect_answer(stream)


@check("9113 §5.3")
def a_stream_that_depends_on_itself(target):
    """A priority that depends on its own stream is ignored, or, as RFC 7540 had it, PROTOCOL_ERROR."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.send_frame(Kind.PRIORITY, 0, stream, priority_payload(stream))
        client.expect_ignored_or(stream, Code.PROTOCOL_ERROR)


# ---- 5.4: errors -------------------------------------------------------------------------------------------


@check("9113 §5.4.2")
def a_reset_is_not_answered_by_a_reset(target):
    """RST_STREAM is not sent in response to RST_STREAM."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.expect_nothing_else()
        client.reset(stream)
        client.expect_alive()
        if client.streams[stream].reset is not None:
            raise Failed("RST_STREAM came back")
