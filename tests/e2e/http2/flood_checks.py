"""Clients that keep a server busy for nothing: RFC 9113 §10.5.

Of whoever sends much that gets nobody anywhere the server rids itself: GOAWAY with ENHANCE_YOUR_CALM or PROTOCOL_ERROR,
or a closed connection, within a bound. Until then it has not grown, and others are served. The RFC leaves the bound to
servers, so the one here is a choice: far more than any client in earnest needs.
"""

import select
import ssl
import time

from .check import Failed, Skipped, check
from .client import Client
from .frames import Code, Flag, Kind, Setting, block, frame, indexed, remembered, settings_payload, u32
from .window_checks import upload_until_stuck

CALMING = (Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR)
FRAMES_AT_MOST = 100_000
BYTES_AT_MOST = 64 << 20
SECONDS_AT_MOST = 30
# How much a server may grow for all that one connection sends or does not take.
GROWTH_AT_MOST_KIB = 16 << 10
# Pieces that are sent in one go, and how often others are asked after.
AT_ONCE = 100
BESIDE_EVERY = 2_000


class Flood:
    """One connection that sends as fast as it can, and now and then another one of an ordinary client."""

    def __init__(self, target, settings=(), reads=True):
        """`reads`: the flooding client takes what the server sends, and judges it."""
        self.target = target
        self.reads = reads
        self.client = Client(target, settings)
        self.client.deadline = time.monotonic() + 2 * SECONDS_AT_MOST
        self.rss_before = target.rss_kib()
        self.ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def run(self, piece, pieces_at_most=FRAMES_AT_MOST):
        """Sends `piece(number)` over and over until the server has ended the connection, or is stuck, or has seen
        enough. Returns how many were sent."""
        sent = octets = 0
        end = time.monotonic() + SECONDS_AT_MOST
        while not self.ended and sent < pieces_at_most and octets < BYTES_AT_MOST and time.monotonic() < end:
            many = b"".join(piece(sent + number) for number in range(AT_ONCE))
            if not self.send(many):
                break
            sent, octets = sent + AT_ONCE, octets + len(many)
            if sent % BESIDE_EVERY == 0:
                self.look_beside()
        self.look_beside()
        return sent

    def send(self, octets):
        """Sends all of it, reading meanwhile. False: the server takes no more, or has ended the connection."""
        connection, view = self.client.socket, memoryview(octets)
        connection.setblocking(False)
        while view and not self.ended:
            try:
                view = view[connection.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not self.reads or not self.wait():
                    ready = select.select([], [connection], [], 2)
                    if not ready[1]:
                        return False
            except (ConnectionError, ssl.SSLError):
                self.ended = True
            if self.reads:
                self.read()
        return not self.ended

    def wait(self):
        """Until something can be read or written; False if that takes too long."""
        connection = self.client.socket
        return any(select.select([connection], [connection], [], self.target.patience_s))

    def read(self):
        """Takes and judges all that is there."""
        try:
            while octets := self.client.socket.recv(65536):
                self.client.input += octets
            self.ended = True
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (ConnectionError, ssl.SSLError):
            self.ended = True
        while self.client.buffered_frame():
            pass

    def look_beside(self):
        """Others are served, and memory is bounded."""
        with Client(self.target) as other:
            other.expect_alive()
        if self.rss_before is not None:
            growth = self.target.rss_kib() - self.rss_before
            if growth > GROWTH_AT_MOST_KIB:
                raise Failed(f"the server has grown by {growth} KiB")

    def expect_calming(self, sent):
        """The server has ended it, or is about to: with the right code if it says one."""
        if not self.ended:
            if self.client.goaway is None:
                raise Failed(f"after {sent} pieces the connection lives on: {self.client.said()}")
            self.client.expect_end()
        if self.client.goaway not in (None, *CALMING):
            raise Failed(f"GOAWAY {Code(self.client.goaway).name}")


def flooded(target, piece, pieces_at_most=FRAMES_AT_MOST, before=None, settings=()):
    """`before`: what the client does first; its result is handed to `piece` beside the number."""
    with Flood(target, settings) as flood:
        first = before(flood.client) if before else flood.client
        flood.expect_calming(flood.run(lambda number: piece(number, first), pieces_at_most))


@check("9113 §10.5")
def requests_that_are_reset_at_once(target):
    """Rapid reset: HEADERS and RST_STREAM, over and over (CVE-2023-44487)."""

    def piece(_, client):
        octets = block(client.fields())
        stream = client.new_stream()
        head = frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, stream, octets)
        return head + frame(Kind.RST_STREAM, 0, stream, u32(Code.CANCEL))

    flooded(target, piece, 20_000)


@check("9113 §10.5")
def requests_that_the_server_must_reset(target):
    """Requests that are made stream errors by their own client, so that the server resets them (CVE-2025-8671)."""

    def piece(_, client):
        stream = client.new_stream("POST")
        head = frame(Kind.HEADERS, Flag.END_HEADERS, stream, block(client.fields("POST")))
        return head + frame(Kind.WINDOW_UPDATE, 0, stream, u32(0))

    flooded(target, piece, 20_000)


@check("9113 §10.5.1")
def continuations_without_an_end(target):
    """A field block that never ends, with fields in it (CVE-2024-27316)."""

    def before(client):
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, client.new_stream(), block(client.fields()))
        return frame(Kind.CONTINUATION, 0, 1, block([("x-more", "y" * 1000)]))

    flooded(target, lambda _, continuation: continuation, before=before)


@check("9113 §10.5")
def continuations_without_a_byte(target):
    """A field block that never ends and has nothing in it."""

    def before(client):
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, client.new_stream(), block(client.fields()))
        return frame(Kind.CONTINUATION, 0, 1)

    flooded(target, lambda _, continuation: continuation, before=before)


@check("9113 §10.5.1")
def fields_without_a_length(target):
    """Fields that are a few bytes on the wire and much in memory: names and values of nothing (CVE-2019-9516)."""

    def before(client):
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, client.new_stream(), block(client.fields()))
        return frame(Kind.CONTINUATION, 0, 1, b"\x00\x00\x00" * 5000)

    flooded(target, lambda _, continuation: continuation, before=before)


@check("9113 §10.5.1")
def one_large_field_a_thousand_times(target):
    """A field of 4,000 bytes, entered once and referred to with one byte each: refused, or an error; no memory."""
    with Flood(target) as flood:
        client = flood.client
        for _ in range(50):
            whole = block(client.fields()) + remembered("x-large", "y" * 3_900) + indexed(62) * 12_000
            stream = client.open_block(whole)
            state = client.streams[stream]
            while state.status is None and state.reset is None and client.read_frame() is not None:
                pass
            if state.status is not None and not 400 <= state.status < 500:
                raise Failed(f"answered {state.status}")
            flood.look_beside()
            if client.over or client.goaway is not None:
                return


@check("9113 §10.5")
def pings(target):
    """PING after PING, all of whose acknowledgements are read (CVE-2019-9512)."""
    flooded(target, lambda number, _: frame(Kind.PING, 0, 0, b"%08d" % number))


@check("9113 §10.5")
def settings(target):
    """SETTINGS after SETTINGS, all of which are acknowledged (CVE-2019-9515)."""

    def piece(number, client):
        pairs = [(Setting.MAX_CONCURRENT_STREAMS, number)]
        client.unacknowledged.append(pairs)
        return frame(Kind.SETTINGS, 0, 0, settings_payload(pairs))

    flooded(target, piece)


@check("9113 §10.5")
def data_without_a_byte(target):
    """DATA of no bytes that ends nothing (CVE-2019-9518)."""
    before = lambda client: frame(Kind.DATA, 0, client.request("POST", end=False))
    flooded(target, lambda _, empty: empty, before=before)


@check("9113 §10.5")
def window_updates(target):
    """WINDOW_UPDATE after WINDOW_UPDATE, of one byte each, where nothing is sent."""
    flooded(target, lambda *_: frame(Kind.WINDOW_UPDATE, 0, 0, u32(1)))


@check("9113 §10.5")
def priorities(target):
    """PRIORITY after PRIORITY, which mean nothing any more (CVE-2019-9513)."""
    flooded(target, lambda number, _: frame(Kind.PRIORITY, 0, 2 * number + 1, u32(0) + b"\0"))


@check("9113 §10.5")
def unknown_frames(target):
    """Frames of an unknown type are ignored, but not for ever."""
    flooded(target, lambda *_: frame(0xBA, 0, 0))


# ---- what nobody reads -------------------------------------------------------------------------------------


def unread(target, piece, pieces_at_most):
    """The server ends it, or takes no more; either way it does not grow and others are served."""
    with Flood(target, reads=False) as flood:
        flood.run(lambda number: piece(number, flood.client), pieces_at_most)


@check("9113 §10.5")
def pings_whose_acknowledgements_nobody_reads(target):
    """Answers to PINGs do not pile up without a bound for a client that does not read."""
    unread(target, lambda number, _: frame(Kind.PING, 0, 0, b"%08d" % number), 4_000_000)


@check("9113 §10.5")
def settings_whose_acknowledgements_nobody_reads(target):
    """Acknowledgements of SETTINGS do not pile up without a bound for a client that does not read."""
    unread(target, lambda *_: frame(Kind.SETTINGS, 0, 0), 4_000_000)


@check("9113 §10.5")
def refusals_that_nobody_reads(target):
    """RST_STREAM frames do not pile up without a bound for a client that does not read."""

    def piece(_, client):
        octets = block([*client.fields(), ("connection", "close")])
        return frame(Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM, client.new_stream(), octets)

    unread(target, piece, 200_000)


@check("9113 §10.5")
def answers_that_nobody_lets_through(target):
    """Fifty answers of 10 MB behind windows of nothing: the server does not read them into its memory."""
    with Flood(target, [(Setting.INITIAL_WINDOW_SIZE, 0)]) as flood:
        for _ in range(50):
            stream = flood.client.request("GET", "/download/10000000")
            state = flood.client.streams[stream]
            flood.client.read_until(lambda: state.status is not None or state.reset is not None, "a head")
        for _ in range(10):
            flood.look_beside()


# ---- and who is none ---------------------------------------------------------------------------------------


@check("9113 §10.5")
def an_eager_client_is_no_flood(target):
    """Many requests, some of them called off, each with a PING, and a WINDOW_UPDATE for each piece: all are served."""
    with Client(target) as client:
        client.deadline = time.monotonic() + 2 * SECONDS_AT_MOST
        for turn in range(300):
            if turn % 10 == 0:
                called_off = client.request("GET", "/download/1000000")
                client.read_until(lambda: client.streams[called_off].body, "the first bytes")
                client.reset(called_off)
            stream = client.request("GET", "/download/1000")
            client.expect_nothing_else()
            client.expect_answer(stream)
        if len(client.expect_answer(client.request("GET", "/download/10000000")).body) != 10_000_000:
            raise Failed("the answer is not whole")


@check("9113 §10.5")
def small_pieces_that_a_dyno_is_slow_to_take_are_no_flood(target):
    """A thousand DATA frames of ten bytes are within every window, also while nobody takes them: no error."""
    if target.deaf_authority is None:
        raise Skipped("no server there that does not read")
    with Client(target, authority=target.deaf_authority) as client:
        stream = client.request("POST", end=False)
        upload_until_stuck(client, stream, keep=20_000)
        for _ in range(1000):
            client.data(stream, b"ten bytes!")
        client.expect_nothing_else()
