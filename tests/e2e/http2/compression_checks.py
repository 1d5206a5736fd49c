"""Compressed fields, and what cannot be decoded: RFC 7541.

A decoding error is a connection error COMPRESSION_ERROR (RFC 9113 §4.3), since both sides' tables would differ.
"""

from .check import Failed, check
from .client import Client
from .frames import (
    DEFAULT_TABLE_SIZE,
    Code,
    Setting,
    block,
    huffman_text,
    indexed,
    integer,
    literal,
    never_indexed,
    remembered,
    table_size,
    text,
)

# The first index behind the static table: the newest entry of the dynamic one.
NEWEST = 62


def undecodable(target, octets, before=False):
    """A good request, with these bytes behind its block, or before it."""
    with Client(target) as client:
        whole = block(client.fields())
        client.open_block(octets + whole if before else whole + octets)
        client.expect_connection_error(Code.COMPRESSION_ERROR)


def decodable(target, octets, before=False):
    with Client(target) as client:
        whole = block(client.fields())
        client.expect_answer(client.open_block(octets + whole if before else whole + octets))


# ---- 5: integers and strings -------------------------------------------------------------------------------


@check("7541 §5.1")
def an_integer_without_an_end(target):
    """Integers beyond what an implementation holds are decoding errors, be they as long as they like."""
    undecodable(target, b"\xff" + b"\xff" * 20 + b"\x7f")
    undecodable(target, b"\xff" + b"\x80" * 100 + b"\x01")


@check("7541 §5.1")
def an_integer_cut_short(target):
    """A block that ends within an integer is a decoding error."""
    undecodable(target, b"\xff\x80")


@check("7541 §5.2")
def a_string_longer_than_its_block(target):
    """A string that goes on behind its block is a decoding error."""
    undecodable(target, b"\x00" + text("x-cut") + integer(100, 7) + b"short")
    undecodable(target, b"\x00" + integer(2**20, 7))


@check("7541 §5.2")
def huffman_coded_strings(target):
    """Strings may be Huffman-coded: www.example.com, as §C.4.1 has it, and an empty one."""
    coded = huffman_text(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff"))
    decodable(target, b"\x00" + text("x-coded") + coded + b"\x00" + text("x-empty") + huffman_text(b""))


@check("7541 §5.2")
def huffman_padding_of_a_whole_byte(target):
    """Padding of more than seven bits is a decoding error."""
    # `a` is 00011, and 11 bits of padding follow.
    undecodable(target, b"\x00" + text("x-padded") + huffman_text(b"\x1f\xff"))
    undecodable(target, b"\x00" + text("x-padded") + huffman_text(b"\xff"))


@check("7541 §5.2")
def huffman_padding_of_zeros(target):
    """Padding that is not the beginning of EOS (ones) is a decoding error."""
    undecodable(target, b"\x00" + text("x-padded") + huffman_text(b"\x18"))


@check("7541 §5.2")
def huffman_eos(target):
    """The EOS symbol in a string is a decoding error."""
    # 30 ones are EOS; two more are padding.
    undecodable(target, b"\x00" + text("x-ended") + huffman_text(b"\xff\xff\xff\xff"))


# ---- 6.1, 6.2: fields --------------------------------------------------------------------------------------


@check("7541 §6.1")
def index_0(target):
    """Index 0 is a decoding error."""
    undecodable(target, indexed(0))


@check("7541 §2.3.3")
def an_index_beyond_the_tables(target):
    """An index beyond both tables is a decoding error, in a field as in a name."""
    undecodable(target, indexed(NEWEST))
    undecodable(target, indexed(2**20))
    undecodable(target, literal(NEWEST, "value"))
    undecodable(target, remembered(NEWEST, "value"))


@check("7541 §6.2")
def every_kind_of_literal(target):
    """Literals with and without indexing, never indexed, with names from the table and new ones."""
    # 19 is the static table's `accept`, 24 `cache-control`, 58 `user-agent`.
    known = literal(19, "*/*") + never_indexed(24, "no-cache") + remembered(58, "conformance")
    decodable(target, known + literal("x-a", "1") + never_indexed("x-b", "2") + remembered("x-c", "3"))


@check("7541 §6.1")
def fields_from_the_static_table(target):
    """A request as browsers write it: indices for all that the static table has."""
    with Client(target) as client:
        # GET, / and the scheme; 1 is `:authority`.
        scheme = indexed(7 if target.tls else 6)
        octets = indexed(2) + scheme + indexed(4) + remembered(1, target.authority) + indexed(16)
        client.expect_answer(client.open_block(octets))
        octets = indexed(2) + scheme + indexed(4) + indexed(NEWEST) + indexed(16)
        client.expect_answer(client.open_block(octets))


# ---- 2.3, 4: the dynamic table -----------------------------------------------------------------------------


@check("7541 §2.3.2")
def the_newest_entry_comes_first(target):
    """New entries push the older ones up, from request to request and within a block."""
    with Client(target) as client:
        fields = client.fields("POST", "/first")
        octets = b"".join(remembered(name, value) for name, value in fields)
        client.expect_answer(client.open_block(octets))
        # Last in, first out: :path is 62, :authority 63, :scheme 64, :method 65.
        octets = indexed(65) + indexed(64) + indexed(63) + indexed(62)
        client.expect_answer(client.open_block(octets))
        # Within one block: what is entered now has moved all that follows.
        octets = indexed(65) + indexed(64) + indexed(63) + indexed(62) + remembered("x-new", "1") + indexed(62)
        client.expect_answer(client.open_block(octets))
        octets = indexed(66) + indexed(65) + indexed(64) + indexed(63)
        client.expect_answer(client.open_block(octets))


def table_of(client):
    """How large a dynamic table the server's decoder allows."""
    return client.server_settings.get(Setting.HEADER_TABLE_SIZE, DEFAULT_TABLE_SIZE)


def fill(octets, name):
    """An entry of the table that takes so many bytes; each counts its name, its value and 32 (§4.1)."""
    return remembered(name, "v" * (octets - 32 - len(name)))


@check("7541 §4.4")
def entries_that_do_not_fit_push_out_the_oldest(target):
    """Two entries that fill the table exactly stay; one byte more, and the older one is gone."""
    with Client(target) as client:
        whole, half = block(client.fields()), table_of(client) // 2
        # The same octets always, so that the head has the same length whether they are sent or referred to.
        octets = whole + fill(half, "x-one") + fill(half, "x-two") + indexed(NEWEST + 1) + indexed(NEWEST)
        client.expect_answer(client.open_block(octets))
    with Client(target) as client:
        octets = whole + fill(half, "x-one") + fill(half + 1, "x-two") + indexed(NEWEST + 1)
        client.open_block(octets)
        client.expect_connection_error(Code.COMPRESSION_ERROR)


@check("7541 §4.4")
def an_entry_larger_than_the_table_empties_it(target):
    """An entry larger than the table is no error: the table is empty then."""
    with Client(target) as client:
        whole = block(client.fields())
        octets = whole + remembered("x-small", "1") + fill(table_of(client) + 1, "x-large")
        client.expect_answer(client.open_block(octets))
        client.open_block(whole + indexed(NEWEST))
        client.expect_connection_error(Code.COMPRESSION_ERROR)


@check("7541 §4.4")
def a_name_of_an_entry_that_is_pushed_out(target):
    """A new entry may take its name from the one that it pushes out."""
    with Client(target) as client:
        whole, most = block(client.fields()), table_of(client)
        client.expect_answer(client.open_block(whole + fill(most, "x-name")))
        # 32 + 6 + the value: exactly the table again, so that the first must leave.
        octets = whole + remembered(NEWEST, "w" * (most - 38)) + indexed(NEWEST)
        client.expect_answer(client.open_block(octets))
        client.open_block(whole + indexed(NEWEST + 1))
        client.expect_connection_error(Code.COMPRESSION_ERROR)


# ---- 6.3: table size updates -------------------------------------------------------------------------------


@check("7541 §6.3")
def a_table_size_beyond_the_limit(target):
    """An update beyond SETTINGS_HEADER_TABLE_SIZE is a decoding error."""
    with Client(target) as client:
        client.open_block(table_size(table_of(client) + 1) + block(client.fields()))
        client.expect_connection_error(Code.COMPRESSION_ERROR)


@check("7541 §4.2")
def a_table_size_update_behind_a_field(target):
    """Updates stand at the beginning of a block; anywhere else they are decoding errors."""
    undecodable(target, table_size(0))


@check("7541 §4.2")
def table_size_updates_before_the_fields(target):
    """Up to two updates may stand at the beginning of a block: the least size, and the last."""
    with Client(target) as client:
        whole = block(client.fields())
        updates = table_size(0) + table_size(table_of(client))
        client.expect_answer(client.open_block(updates + whole + remembered("x-kept", "1")))
        client.expect_answer(client.open_block(whole + indexed(NEWEST)))


@check("7541 §4.3")
def a_smaller_table_pushes_entries_out(target):
    """A table of nothing has no entries, also when it grows again."""
    with Client(target) as client:
        whole = block(client.fields())
        client.expect_answer(client.open_block(whole + remembered("x-kept", "1")))
        client.expect_answer(client.open_block(whole + indexed(NEWEST)))
        updates = table_size(0) + table_size(table_of(client))
        client.open_block(updates + whole + indexed(NEWEST))
        client.expect_connection_error(Code.COMPRESSION_ERROR)


@check("7541 §4.1")
def an_answer_uses_no_larger_table_than_allowed(target):
    """The server's own encoder stays within the table that we allow: many answers can all be decoded."""
    with Client(target) as client:
        for _ in range(50):
            client.expect_answer(client.request("GET", "/download/10"))
        if client.decoder.header_table.maxsize > DEFAULT_TABLE_SIZE:
            raise Failed("its table is larger than the default")
