"""Flow control, to the byte: RFC 9113 §5.2 and §6.9.

`Client` counts every byte against the windows it gave, so a check needs only to make windows small and see that what
they let through does come. That nothing else comes is seen behind the acknowledgement of a PING.
"""

import time

from .check import Failed, Skipped, check
from .client import Client
from .frames import DEFAULT_WINDOW, MAX_WINDOW, Code, Flag, Kind, Setting, padded, u32

ASKED = 200_000
LONG = f"/download/{ASKED}"
# What a server may take for a dyno that reads nothing, before it must hold the client back: its own windows and
# buffers and the kernel's, but not the upload.
HELD_AT_MOST = 16 << 20


def narrow(target, window):
    return Client(target, [(Setting.INITIAL_WINDOW_SIZE, window)], replenish=False)


def expect_body(client, stream, octets):
    """The answer has come so far, and no further."""
    state = client.streams[stream]
    client.read_until(lambda: len(state.body) >= octets or state.reset is not None, f"{octets} bytes of the answer")
    client.expect_nothing_else()
    if len(state.body) != octets or state.reset is not None:
        raise Failed(f"{len(state.body)} bytes instead of {octets}, reset: {state.reset}")


@check("9113 §6.9.1")
def a_window_of_one_byte(target):
    """With a window of one byte one byte comes, and one more for each that is given."""
    with narrow(target, 1) as client:
        stream = client.request("GET", LONG)
        expect_body(client, stream, 1)
        for so_far in range(2, 6):
            client.widen(stream, 1)
            expect_body(client, stream, so_far)
        client.widen(stream, 1000)
        expect_body(client, stream, 1005)


@check("9113 §6.9.1")
def heads_need_no_window(target):
    """Only DATA is subject to flow control: with windows of nothing heads, PINGs and SETTINGS go on."""
    with narrow(target, 0) as client:
        first, second = client.request("GET", LONG), client.request("GET", LONG)
        for stream in (first, second):
            client.read_until(lambda: client.streams[stream].status == 200, "the answer's head")
        client.send_settings([(0xBABA, 1)])
        client.expect_nothing_else()


@check("9113 §6.9.1")
def the_window_of_the_connection(target):
    """The windows of streams add up to no more than the connection's, which no SETTINGS widens."""
    with narrow(target, MAX_WINDOW) as client:
        streams = [client.request("GET", LONG) for _ in range(3)]
        received = lambda: sum(len(client.streams[it].body) for it in streams)
        client.read_until(lambda: received() == DEFAULT_WINDOW, f"{DEFAULT_WINDOW} bytes in all")
        client.expect_nothing_else()
        client.widen(0, 1)
        client.read_until(lambda: received() == DEFAULT_WINDOW + 1, "one byte more")
        client.widen(0, 3 * ASKED)
        for stream in streams:
            if len(client.expect_answer(stream).body) != ASKED:
                raise Failed("the answer is not whole")


@check("9113 §6.9.1")
def a_full_stream_does_not_hold_up_others(target):
    """A stream without a window holds back nobody else."""
    with narrow(target, 100) as client:
        stuck = client.request("GET", LONG)
        expect_body(client, stuck, 100)
        free = client.request("GET", "/download/5000")
        client.widen(free, 5000)
        client.expect_answer(free)
        expect_body(client, stuck, 100)


@check("9113 §6.9.2")
def an_initial_window_that_grows(target):
    """A greater SETTINGS_INITIAL_WINDOW_SIZE widens the windows of streams that are open."""
    with narrow(target, 0) as client:
        stream = client.request("GET", LONG)
        client.read_until(lambda: client.streams[stream].status == 200, "the answer's head")
        client.send_settings([(Setting.INITIAL_WINDOW_SIZE, 10)])
        expect_body(client, stream, 10)
        client.send_settings([(Setting.INITIAL_WINDOW_SIZE, 1010)])
        expect_body(client, stream, 1010)


@check("9113 §6.9.2")
def a_window_below_nothing(target):
    """A smaller SETTINGS_INITIAL_WINDOW_SIZE can make a window negative: nothing comes until it is positive."""
    with narrow(target, 100) as client:
        stream = client.request("GET", LONG)
        expect_body(client, stream, 100)
        client.send_settings([(Setting.INITIAL_WINDOW_SIZE, 40)])
        client.read_until(lambda: not client.unacknowledged, "the acknowledgement")
        client.widen(stream, 50)
        expect_body(client, stream, 100)
        client.widen(stream, 10)
        expect_body(client, stream, 100)
        client.widen(stream, 7)
        expect_body(client, stream, 107)


@check("9113 §6.9.2")
def an_initial_window_that_makes_a_window_overflow(target):
    """SETTINGS_INITIAL_WINDOW_SIZE that takes a window beyond 2^31-1 is a connection error FLOW_CONTROL_ERROR."""
    with narrow(target, DEFAULT_WINDOW) as client:
        # The connection's window is used up, so that the stream's stays as large as it is made.
        stream = client.request("GET", LONG)
        expect_body(client, stream, DEFAULT_WINDOW)
        client.widen(stream, MAX_WINDOW)
        client.send_settings([(Setting.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW + 1)])
        client.expect_connection_error(Code.FLOW_CONTROL_ERROR)


@check("9113 §6.9.1")
def a_window_of_a_stream_that_overflows(target):
    """WINDOW_UPDATE that takes a stream's window beyond 2^31-1 is a stream error FLOW_CONTROL_ERROR."""
    with narrow(target, 100) as client:
        stream = client.request("POST", end=False)
        client.send_frame(Kind.WINDOW_UPDATE, 0, stream, u32(MAX_WINDOW))
        client.expect_stream_error(stream, Code.FLOW_CONTROL_ERROR)


@check("9113 §6.9.1")
def a_window_of_the_connection_that_overflows(target):
    """WINDOW_UPDATE that takes the connection's window beyond 2^31-1 is a connection error FLOW_CONTROL_ERROR."""
    with narrow(target, 100) as client:
        client.send_frame(Kind.WINDOW_UPDATE, 0, 0, u32(MAX_WINDOW))
        client.expect_connection_error(Code.FLOW_CONTROL_ERROR)


@check("9113 §6.9.1")
def the_greatest_window(target):
    """A window of exactly 2^31-1 is allowed."""
    with narrow(target, MAX_WINDOW) as client:
        client.widen(0, MAX_WINDOW - DEFAULT_WINDOW)
        client.expect_answer(client.request("GET", LONG))


# ---- the server's windows ----------------------------------------------------------------------------------


@check("9113 §6.9")
def an_upload_larger_than_the_windows(target):
    """The server gives back what its side has taken: an upload of four windows goes through."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        upload(client, stream, 4 * DEFAULT_WINDOW)
        client.data(stream, end=True)
        client.expect_answer(stream)


@check("9113 §6.9.1")
def discarded_data_counts(target):
    """DATA on a stream that was reset counts for the connection, and is given back: four windows of it harm no
    request that follows."""
    with Client(target) as client:
        for _ in range(4):
            stream = client.request("POST", end=False)
            upload(client, stream, client.streams[stream].send_window)
            client.reset(stream)
        stream = client.request("POST", end=False)
        upload(client, stream, DEFAULT_WINDOW)
        client.data(stream, end=True)
        client.expect_answer(stream)


@check("9113 §5.2.2")
def padding_counts(target):
    """Padding takes room in the windows, and the server gives it back."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        for _ in range(1 + 4 * DEFAULT_WINDOW // 1256):
            wait_for_room(client, stream, 1256)
            client.send_frame(Kind.DATA, Flag.PADDED, stream, padded(bytes(1000), 255))
        client.data(stream, end=True)
        client.expect_answer(stream)


@check("9113 §6.9.1")
def an_upload_that_nobody_takes(target):
    """For a dyno that does not read, the server stops giving windows; who then sends more than the window gets a
    FLOW_CONTROL_ERROR, of the stream or the connection."""
    if target.deaf_authority is None:
        raise Skipped("no server there that does not read")
    with Client(target, authority=target.deaf_authority) as client:
        stream = client.request("POST", end=False)
        upload_until_stuck(client, stream, keep=0)
        client.data(stream, b"!")
        client.expect_refusal(stream, Code.FLOW_CONTROL_ERROR)


def upload_until_stuck(client, stream, keep):
    """Sends to somebody who does not read until the server gives no more room, but for the last `keep` bytes."""
    client.deadline = time.monotonic() + 60
    state, sent = client.streams[stream], 0
    room = lambda: min(state.send_window, client.send_window) - keep
    while room() > 0:
        sent += room()
        if sent > HELD_AT_MOST:
            raise Failed(f"{sent} bytes were taken that nobody reads")
        upload(client, stream, room())
        client.expect_nothing_else()
        if room() <= 0:
            settle(client)


def settle(client):
    """Until no window has grown for three PINGs in a row, a tenth of a second apart.

    A window that grows later makes the check that follows fail, not pass.
    """
    quiet = 0
    while quiet < 3:
        before = client.send_window, [it.send_window for it in client.streams.values()]
        time.sleep(0.1)
        client.expect_nothing_else()
        same = before == (client.send_window, [it.send_window for it in client.streams.values()])
        quiet = quiet + 1 if same else 0


def upload(client, stream, octets):
    """Sends so much as fast as the server's windows let it."""
    while octets > 0:
        wait_for_room(client, stream, 1)
        state = client.streams[stream]
        piece = min(octets, state.send_window, client.send_window, 16_384)
        client.data(stream, bytes(piece))
        octets -= piece


def wait_for_room(client, stream, octets):
    state = client.streams[stream]
    client.read_until(
        lambda: min(state.send_window, client.send_window) >= octets or state.reset is not None,
        f"room for {octets} bytes",
    )
    if state.reset is not None:
        raise Failed(f"the stream was reset with {state.reset}")
