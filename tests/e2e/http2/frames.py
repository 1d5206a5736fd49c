"""HTTP/2 as bytes: frames (RFC 9113 §4.1, §6) and field blocks (RFC 7541 §5, §6), also those that no library would
write. It checks nothing: what is wrong here is wrong on purpose.
"""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# RFC 9113 §6.5.2: what holds until a SETTINGS frame says otherwise.
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384
DEFAULT_TABLE_SIZE = 4_096
MAX_WINDOW = 2**31 - 1


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntEnum):
    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class Code(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


# ---- frames ------------------------------------------------------------------------------------------------


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def u32(number):
    return struct.pack(">I", number)


def settings_payload(pairs):
    return b"".join(struct.pack(">HI", setting, value) for setting, value in pairs)


def padded(payload, padding, said=None):
    """A payload with its padding; `said` is the length that stands before it, if another."""
    return bytes([padding if said is None else said]) + payload + bytes(padding)


def priority_payload(depends_on, weight=15):
    return u32(depends_on) + bytes([weight])


# ---- field blocks ------------------------------------------------------------------------------------------


def integer(number, prefix_bits, pattern=0):
    """RFC 7541 §5.1, with `pattern` in the bits above the prefix."""
    limit = 2**prefix_bits - 1
    if number < limit:
        return bytes([pattern | number])
    out = [pattern | limit]
    number -= limit
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


def text(it):
    """A string literal without Huffman coding (RFC 7541 §5.2). Characters are bytes (ISO 8859-1)."""
    octets = it if isinstance(it, bytes) else it.encode("latin-1")
    return integer(len(octets), 7) + octets


def huffman_text(octets):
    """A string literal whose octets are taken to be Huffman code."""
    return integer(len(octets), 7, 0x80) + octets


def indexed(index):
    return integer(index, 7, 0x80)


def literal(name, value):
    """A field that enters no table (§6.2.2). `name`: text, or an index."""
    return _literal(name, value, 4, 0x00)


def never_indexed(name, value):
    return _literal(name, value, 4, 0x10)


def remembered(name, value):
    """A field that enters the dynamic table (§6.2.1)."""
    return _literal(name, value, 6, 0x40)


def _literal(name, value, prefix_bits, pattern):
    if isinstance(name, int):
        return integer(name, prefix_bits, pattern) + text(value)
    return bytes([pattern]) + text(name) + text(value)


def table_size(octets):
    """A dynamic table size update (§6.3)."""
    return integer(octets, 5, 0x20)


def block(fields):
    """A field block that leaves the dynamic table as it was."""
    return b"".join(literal(name, value) for name, value in fields)
