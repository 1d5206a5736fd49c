"""A client that sends what it is told, and judges all that comes back.

Whatever a check is about, each frame of the server is held against RFC 9113 on the way: sizes, states, windows,
field blocks and the shape of answers. So "an answer is never malformed" is asserted by every check.
"""

import re
import ssl
import time
from collections import deque
from dataclasses import dataclass, field

import hpack

from .check import Failed
from .frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    MAX_WINDOW,
    PREFACE,
    Code,
    Flag,
    Kind,
    Setting,
    block,
    frame,
    settings_payload,
    u32,
)

# What a client says of itself where a check does not say more.
USUAL_SETTINGS = [(Setting.ENABLE_PUSH, 0)]
# RFC 9113 §8.2.2.
CONNECTION_FIELDS = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
# However much comes, a check is over after so many turns of patience.
PATIENCES = 4


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    def has(self, flag):
        return bool(self.flags & flag)

    def __str__(self):
        name = Kind(self.kind).name if self.kind in list(Kind) else f"type {self.kind}"
        code = ""
        if self.kind == Kind.RST_STREAM and len(self.payload) == 4:
            code = f" {code_name(int.from_bytes(self.payload, 'big'))}"
        if self.kind == Kind.GOAWAY and len(self.payload) >= 8:
            code = f" {code_name(int.from_bytes(self.payload[4:8], 'big'))} {self.payload[8:40]!r}"
        return f"{name}({self.stream}, {self.flags:#x}, {len(self.payload)} B){code}"


@dataclass
class Stream:
    """What became of one request."""

    id: int
    method: str
    # How much the server may still send, and how much we may.
    window: int
    send_window: int
    interim: list = field(default_factory=list)
    status: int | None = None
    fields: list = field(default_factory=list)
    trailers: list | None = None
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    def value(self, name):
        return next((value for it, value in self.fields if it == name), None)


class Client:
    def __init__(self, target, settings=(), greet=True, replenish=True, authority=None):
        """`greet`: prefaces are exchanged and settings acknowledged. `replenish`: windows are kept open.
        `authority`: whom it asks, if not the target's usual one."""
        self.target = target
        self.authority = authority or target.authority
        self.replenish = replenish
        self.deadline = time.monotonic() + PATIENCES * target.patience_s
        self.input = bytearray()
        self.seen = deque(maxlen=6)
        self.streams = {}
        self.next_stream = 1
        self.goaway = None
        self.over = False
        self.probes = 0
        # Ours, and what the server owes an acknowledgement for.
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.frame_size = DEFAULT_FRAME_SIZE
        self.unacknowledged = deque()
        # The server's.
        self.server_settings = None
        self.send_window = DEFAULT_WINDOW
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.fragments = None
        self.socket = target.connect(self.authority)
        if greet:
            self.send(PREFACE)
            self.send_settings([*USUAL_SETTINGS, *settings])
            self.read_until(lambda: self.server_settings is not None and not self.unacknowledged, "SETTINGS and ACK")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # ---- sending -----------------------------------------------------------------------------------------

    def send(self, octets):
        """Sends bytes as they are. A server that has already closed is found out by reading."""
        try:
            self.socket.settimeout(self.target.patience_s)
            self.socket.sendall(octets)
        except TimeoutError:
            raise Failed("the server stopped reading") from None
        except (ConnectionError, ssl.SSLError):
            pass

    def send_frame(self, kind, flags=0, stream=0, payload=b""):
        self.send(frame(kind, flags, stream, payload))
        if kind == Kind.DATA and stream in self.streams:
            self.send_window -= len(payload)
            self.streams[stream].send_window -= len(payload)

    def send_settings(self, pairs):
        self.send_frame(Kind.SETTINGS, 0, 0, settings_payload(pairs))
        self.unacknowledged.append(pairs)
        for setting, value in pairs:
            # What gives more holds once it is sent, what takes away when it is acknowledged.
            if setting == Setting.INITIAL_WINDOW_SIZE and value > self.initial_window:
                self.change_initial_window(value)
            if setting == Setting.MAX_FRAME_SIZE:
                self.frame_size = max(self.frame_size, value)

    def acknowledged(self, pairs):
        for setting, value in pairs:
            if setting == Setting.INITIAL_WINDOW_SIZE and value != self.initial_window:
                self.change_initial_window(value)
            if setting == Setting.MAX_FRAME_SIZE:
                self.frame_size = value
            if setting == Setting.HEADER_TABLE_SIZE:
                self.decoder.max_allowed_table_size = value

    def change_initial_window(self, value):
        for stream in self.streams.values():
            stream.window += value - self.initial_window
        self.initial_window = value

    def widen(self, stream, octets):
        """WINDOW_UPDATE for a stream, or for the connection: 0."""
        self.send_frame(Kind.WINDOW_UPDATE, 0, stream, u32(octets))
        if stream:
            self.streams[stream].window += octets
        else:
            self.window += octets

    def fields(self, method="GET", path="/", extra=()):
        """The fields of a request as it should be."""
        pseudo = [(":method", method), (":scheme", self.target.scheme)]
        pseudo += [(":authority", self.authority), (":path", path)]
        return [*pseudo, *extra]

    def request(self, method="GET", path="/", extra=(), end=True):
        """Begins a request as it should be. Returns its stream."""
        return self.open(self.fields(method, path, extra), end)

    def open(self, fields, end=True):
        """Begins a request of these fields, be they as they may."""
        method = next((value for name, value in fields if name == ":method"), "GET")
        return self.open_block(block(fields), end, method)

    def open_block(self, octets, end=True, method="GET"):
        flags = Flag.END_HEADERS | (Flag.END_STREAM if end else 0)
        stream = self.new_stream(method)
        self.send_frame(Kind.HEADERS, flags, stream, octets)
        return stream

    def new_stream(self, method="GET"):
        """The next identifier, for frames that a check puts together by itself."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        send_window = (self.server_settings or {}).get(Setting.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
        self.streams[stream] = Stream(stream, method, self.initial_window, send_window)
        return stream

    def data(self, stream, octets=b"", end=False):
        self.send_frame(Kind.DATA, Flag.END_STREAM if end else 0, stream, octets)

    def trailers(self, stream, fields, end=True):
        self.send_frame(Kind.HEADERS, Flag.END_HEADERS | (Flag.END_STREAM if end else 0), stream, block(fields))

    def reset(self, stream, code=Code.CANCEL):
        self.send_frame(Kind.RST_STREAM, 0, stream, u32(code))

    # ---- receiving ---------------------------------------------------------------------------------------

    def receive(self):
        """Some bytes; none at the end of the connection, however it ends."""
        patience = min(self.target.patience_s, self.deadline - time.monotonic())
        try:
            if patience <= 0:
                raise TimeoutError
            self.socket.settimeout(patience)
            return self.socket.recv(65536)
        except TimeoutError:
            raise Failed(f"the server did no more; before that: {self.said()}") from None
        except (ConnectionError, ssl.SSLError):
            return b""

    def read_frame(self):
        """The next frame, judged; None at the end of the connection."""
        while (it := self.buffered_frame()) is None:
            octets = self.receive()
            if not octets:
                self.over = True
                return None
            self.input += octets
        return it

    def buffered_frame(self):
        """The next frame, judged, if all of it has been received."""
        length = int.from_bytes(self.input[:3], "big")
        if len(self.input) < 9 + length:
            return None
        stream = int.from_bytes(self.input[5:9], "big") & MAX_WINDOW
        it = Frame(self.input[3], self.input[4], stream, bytes(self.input[9 : 9 + length]))
        del self.input[: 9 + length]
        self.seen.append(str(it))
        self.judge(it)
        return it

    def read_until(self, is_so, what):
        """Reads until something is so. The end of the connection or its GOAWAY with an error is a failure."""
        while not is_so():
            it = self.read_frame()
            if it is None:
                raise Failed(f"the server closed, instead of: {what}; before that: {self.said()}")
            if it.kind == Kind.GOAWAY and self.goaway != Code.NO_ERROR:
                raise Failed(f"{it}, instead of: {what}")

    def said(self):
        return ", ".join(self.seen) or "nothing"

    # ---- what is expected --------------------------------------------------------------------------------

    def expect_connection_error(self, *codes, probe=True):
        """GOAWAY with one of the codes, and the end; or the end alone, as §5.4.1 allows.

        A PING is sent behind the offence: its acknowledgement would say that there will be no error. Not with
        `probe=False`, where a PING would be an offence itself.
        """
        answered = self.send_probe() if probe else lambda: False
        while not answered():
            it = self.read_frame()
            if it is None:
                return
            if it.kind == Kind.GOAWAY:
                self.demand_code(it, self.goaway, codes)
                return self.expect_end()
        raise Failed(f"no connection error; instead: {self.said()}")

    def expect_end(self):
        """§5.4.1: after GOAWAY for an error, the connection is closed."""
        while self.read_frame() is not None:
            pass

    def expect_stream_error(self, stream, *codes):
        """RST_STREAM with one of the codes, after which the connection is as before; or an error of the connection,
        as which §5.4.1 lets any server treat it."""
        self.expect_refusal(stream, *codes)
        if not self.over:
            self.expect_alive()

    def expect_refusal(self, stream, *codes):
        """The same, without a look at the connection afterwards."""
        state = self.streams[stream]
        while state.reset is None:
            it = self.read_frame()
            if it is None:
                return
            if it.kind == Kind.GOAWAY:
                self.demand_code(it, self.goaway, codes)
                return self.expect_end()
            if state.ended and state.reset is None and it.kind != Kind.RST_STREAM:
                raise Failed(f"answered {state.status} instead of {names(codes)}")
        self.demand_code(f"RST_STREAM {code_name(state.reset)}", state.reset, codes)

    def expect_malformed(self, stream):
        """§8.1.1: a stream error PROTOCOL_ERROR, before which the server may answer: 4xx, or 501."""
        state = self.streams[stream]
        while not state.ended and state.reset is None:
            it = self.read_frame()
            if it is None:
                return
            if it.kind == Kind.GOAWAY:
                if self.goaway != Code.PROTOCOL_ERROR:
                    raise Failed(f"{it} instead of PROTOCOL_ERROR")
                return self.expect_end()
        if state.status is not None and not (400 <= state.status < 500 or state.status == 501):
            raise Failed(f"answered {state.status}")
        if state.status is None and state.reset != Code.PROTOCOL_ERROR:
            raise Failed(f"RST_STREAM {code_name(state.reset)} instead of PROTOCOL_ERROR")
        # Once the answer is out, the error may still be one of the connection.
        self.expect_ignored_or(stream, Code.PROTOCOL_ERROR, Code.NO_ERROR)

    def expect_answer(self, stream, status=200):
        """A whole answer with this status. Returns the stream."""
        state = self.expect_any_answer(stream)
        if state.status != status:
            raise Failed(f"status {state.status} instead of {status}")
        return state

    def expect_any_answer(self, stream):
        """A whole answer. Returns the stream."""
        state = self.streams[stream]
        self.read_until(lambda: state.ended or state.reset is not None, f"an answer on stream {stream}")
        if not state.ended:
            raise Failed(f"RST_STREAM {code_name(state.reset)} instead of an answer")
        return state

    def expect_alive(self):
        """The connection still works. Asks for nothing that would need a window."""
        self.expect_nothing_else()
        stream = self.request("HEAD")
        if self.authority == self.target.authority:
            self.expect_answer(stream)
        else:
            # Who takes WebSockets may have any answer to that, as long as there is one.
            self.expect_any_answer(stream)

    def expect_nothing_else(self):
        """Everything sent so far has been processed, and all frames in answer to it have been judged."""
        self.read_until(self.send_probe(), "the acknowledgement of a PING")

    def expect_ignored_or(self, stream, *codes):
        """Nothing comes of it but perhaps an error, of the stream or the connection, with one of the codes."""
        answered = self.send_probe()
        while not answered():
            it = self.read_frame()
            if it is None:
                return
            if it.kind == Kind.RST_STREAM and it.stream == stream:
                self.demand_code(it, int.from_bytes(it.payload, "big"), codes)
            if it.kind == Kind.GOAWAY:
                self.demand_code(it, self.goaway, codes)
                return self.expect_end()
        self.expect_alive()

    def demand_code(self, it, code, codes):
        """The error has one of these codes; PROTOCOL_ERROR instead is noted."""
        if code in codes:
            return
        wrong = f"{it} instead of {names(codes)}"
        if code != Code.PROTOCOL_ERROR:
            raise Failed(wrong)
        self.target.inexact.append(wrong)

    def send_probe(self):
        """Sends a PING. Returns a function that says whether its acknowledgement is there."""
        self.probes += 1
        payload = b"P%07d" % self.probes
        self.send_frame(Kind.PING, 0, 0, payload)
        return lambda: self.last_pong == payload

    last_pong = None

    # ---- judging -----------------------------------------------------------------------------------------

    def judge(self, it):
        if len(it.payload) > self.frame_size:
            raise Failed(f"§4.2: {it} is larger than SETTINGS_MAX_FRAME_SIZE")
        if self.server_settings is None and (it.kind != Kind.SETTINGS or it.has(Flag.ACK)):
            raise Failed(f"§3.4: the server's first frame is {it}")
        if self.fragments is not None and (it.kind != Kind.CONTINUATION or it.stream != self.fragments[0]):
            raise Failed(f"§6.10: {it} within a field block")
        handler = JUDGES.get(it.kind)
        if handler:
            handler(self, it)

    def judge_settings(self, it):
        self.demand(it.stream == 0, "§6.5", it)
        if it.has(Flag.ACK):
            self.demand(not it.payload, "§6.5: no payload in an acknowledgement", it)
            self.demand(bool(self.unacknowledged), "§6.5.3: acknowledges what was not sent", it)
            self.acknowledged(self.unacknowledged.popleft())
            return
        self.demand(len(it.payload) % 6 == 0, "§6.5", it)
        self.server_settings = self.server_settings or {}
        for at in range(0, len(it.payload), 6):
            setting = int.from_bytes(it.payload[at : at + 2], "big")
            value = int.from_bytes(it.payload[at + 2 : at + 6], "big")
            self.judge_setting(it, setting, value)
            if setting == Setting.INITIAL_WINDOW_SIZE:
                before = self.server_settings.get(setting, DEFAULT_WINDOW)
                for stream in self.streams.values():
                    stream.send_window += value - before
            self.server_settings[setting] = value
        self.send_frame(Kind.SETTINGS, Flag.ACK)

    def judge_setting(self, it, setting, value):
        if setting == Setting.ENABLE_PUSH:
            self.demand(value == 0, "§6.5.2: a server may not enable push", it)
        if setting == Setting.INITIAL_WINDOW_SIZE:
            self.demand(value <= MAX_WINDOW, "§6.5.2", it)
        if setting == Setting.MAX_FRAME_SIZE:
            self.demand(DEFAULT_FRAME_SIZE <= value < 2**24, "§6.5.2", it)
        if setting == Setting.ENABLE_CONNECT_PROTOCOL:
            was = self.server_settings.get(setting, 0)
            self.demand(value in (0, 1) and value >= was, "RFC 8441 §3", it)

    def judge_ping(self, it):
        self.demand(it.stream == 0 and len(it.payload) == 8, "§6.7", it)
        if it.has(Flag.ACK):
            self.last_pong = it.payload
        else:
            self.send_frame(Kind.PING, Flag.ACK, 0, it.payload)

    def judge_goaway(self, it):
        self.demand(it.stream == 0 and len(it.payload) >= 8, "§6.8", it)
        self.goaway = int.from_bytes(it.payload[4:8], "big")

    def judge_rst_stream(self, it):
        self.demand(len(it.payload) == 4, "§6.4", it)
        # A second one is allowed for frames that come later than a round trip (§5.4.2); the first one counts.
        state = self.judged_stream(it)
        if state.reset is None:
            state.reset = int.from_bytes(it.payload, "big")

    def judge_window_update(self, it):
        self.demand(len(it.payload) == 4, "§6.9", it)
        octets = int.from_bytes(it.payload, "big") & MAX_WINDOW
        self.demand(octets > 0, "§6.9: an increment of 0", it)
        if it.stream == 0:
            self.send_window += octets
            self.demand(self.send_window <= MAX_WINDOW, "§6.9.1", it)
        else:
            state = self.judged_stream(it)
            state.send_window += octets
            self.demand(state.send_window <= MAX_WINDOW, "§6.9.1", it)

    def judge_push_promise(self, it):
        raise Failed(f"§8.4: {it}, and push is disabled")

    def judge_data(self, it):
        state = self.judged_stream(it)
        self.demand(not state.ended and state.reset is None, "§5.1: the stream has ended", it)
        self.demand(state.status is not None, "§8.1: content before the head", it)
        payload = self.without_padding(it)
        self.window -= len(it.payload)
        state.window -= len(it.payload)
        # §6.9.1: an empty frame may be sent whatever the window.
        if it.payload and (self.window < 0 or state.window < 0):
            raise Failed(f"§6.9.1: {it} is more than the window: connection {self.window}, stream {state.window}")
        state.body += payload
        if it.has(Flag.END_STREAM):
            self.judge_end(it, state)
        if self.replenish and it.payload:
            self.widen(0, len(it.payload))
            if not state.ended:
                self.widen(it.stream, len(it.payload))

    def judge_headers(self, it):
        state = self.judged_stream(it)
        self.demand(not state.ended and state.reset is None, "§5.1: the stream has ended", it)
        payload = self.without_padding(it)
        if it.has(Flag.PRIORITY):
            payload = payload[5:]
        self.fragments = (it.stream, it.has(Flag.END_STREAM), bytearray(payload))
        if it.has(Flag.END_HEADERS):
            self.judge_block(it)

    def judge_continuation(self, it):
        self.demand(self.fragments is not None, "§6.10: no field block to continue", it)
        self.fragments[2].extend(it.payload)
        if it.has(Flag.END_HEADERS):
            self.judge_block(it)

    def judge_block(self, it):
        (stream, ends, octets), self.fragments = self.fragments, None
        try:
            decoded = self.decoder.decode(bytes(octets), raw=True)
        except hpack.HPACKError as error:
            raise Failed(f"RFC 7541: a field block cannot be decoded: {error!r}") from None
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in decoded]
        state = self.streams[stream]
        for name, value in fields:
            well = re.fullmatch(r":?[!#$%&'*+.^_`|~0-9a-z-]+", name) and not re.search(r"[\0\r\n]", value)
            if not well or value != value.strip(" \t"):
                raise Failed(f"§8.2.1: {name!r}: {value!r} in an answer")
            if name in CONNECTION_FIELDS:
                raise Failed(f"§8.2.2: {name}: {value} in an answer")
        self.judge_section(it, state, fields, ends)
        if ends:
            self.judge_end(it, state)

    def judge_section(self, it, state, fields, ends):
        pseudo = [name for name, _ in fields if name.startswith(":")]
        if state.status is not None:
            if pseudo or not ends:
                raise Failed(f"§8.1: trailers {fields}, with END_STREAM: {ends}")
            state.trailers = fields
            return
        if pseudo != [":status"] or fields[0][0] != ":status" or not re.fullmatch(r"[1-9]\d\d", fields[0][1]):
            raise Failed(f"§8.3.2: an answer begins with {fields}")
        status = int(fields[0][1])
        if status == 101:
            raise Failed("§8.6: status 101")
        if status < 200:
            self.demand(not ends, "§8.1: an interim answer ends the stream", it)
            state.interim.append((status, fields))
            return
        state.status, state.fields = status, fields

    def judge_end(self, it, state):
        self.demand(state.status is not None, "§8.1: an answer without a head", it)
        state.ended = True
        length = state.value("content-length")
        if length is None or state.method == "HEAD" or state.status == 304:
            return
        if int(length) != len(state.body):
            raise Failed(f"§8.1.1: content-length {length}, and {len(state.body)} bytes came")

    def judged_stream(self, it):
        """The stream of a frame, which must be one that we have opened."""
        if it.stream not in self.streams:
            raise Failed(f"§5.1: {it} on a stream that is idle or none")
        return self.streams[it.stream]

    def without_padding(self, it):
        if not it.has(Flag.PADDED):
            return it.payload
        self.demand(it.payload and it.payload[0] < len(it.payload), "§6.1: padding", it)
        return it.payload[1 : len(it.payload) - it.payload[0]]

    def demand(self, holds, what, it):
        if not holds:
            raise Failed(f"{what}: {it}")


JUDGES = {
    Kind.DATA: Client.judge_data,
    Kind.HEADERS: Client.judge_headers,
    Kind.RST_STREAM: Client.judge_rst_stream,
    Kind.SETTINGS: Client.judge_settings,
    Kind.PUSH_PROMISE: Client.judge_push_promise,
    Kind.PING: Client.judge_ping,
    Kind.GOAWAY: Client.judge_goaway,
    Kind.WINDOW_UPDATE: Client.judge_window_update,
    Kind.CONTINUATION: Client.judge_continuation,
}


def names(codes):
    return " or ".join(Code(code).name for code in codes)


def code_name(number):
    return Code(number).name if number in list(Code) else f"error {number}"
