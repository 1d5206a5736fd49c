"""Requests in HTTP/2, and those that are none: RFC 9113 §8, and RFC 9110 where it is referred to.

Much of what is refused here would become a second request, another host or another length, if a router wrote it into
the HTTP/1.1 that its dynos speak (RFC 9113 §10.3).
"""

import json

from .check import Failed, check
from .client import Client
from .frames import Code, Flag, Kind, block


def malformed(target, fields, end=True):
    """A request of these fields is malformed, which is found out before or after its body."""
    with Client(target) as client:
        stream = client.open(fields, end)
        if not end:
            client.data(stream, b"body", end=True)
        client.expect_malformed(stream)


def malformed_with(target, *extra):
    """A good request with these fields behind its own."""
    with Client(target) as client:
        client.expect_malformed(client.request(extra=extra))


def malformed_without(target, name, value=None):
    """A good request in which a pseudo-field is missing, or has another value."""
    with Client(target) as client:
        fields = [(it, value if it == name else was) for it, was in client.fields()]
        client.expect_malformed(client.open([it for it in fields if it[1] is not None]))


# ---- 8.1: messages -----------------------------------------------------------------------------------------


@check("9113 §8.1")
def requests_on_one_connection(target):
    """Many requests at once on one connection: each gets its own answer."""
    with Client(target) as client:
        streams = {client.request("GET", f"/download/{size}"): size for size in range(1000, 1050)}
        for stream, size in streams.items():
            if len(client.expect_answer(stream).body) != size:
                raise Failed(f"stream {stream} got another's answer")


@check("9113 §8.1")
def a_body_in_pieces(target):
    """A body may come in many frames, some of them empty, and end with an empty one."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("content-length", "9")], end=False)
        for piece in [b"one", b"", b"two", b"six"]:
            client.data(stream, piece)
        client.data(stream, end=True)
        client.expect_answer(stream)


@check("9113 §8.1")
def trailers(target):
    """A request may end with trailers."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("trailer", "x-checksum")], end=False)
        client.data(stream, b"body")
        client.trailers(stream, [("x-checksum", "1234")])
        client.expect_answer(stream)


@check("9113 §8.1")
def trailers_that_do_not_end_the_stream(target):
    """A second HEADERS without END_STREAM is malformed."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.trailers(stream, [("x-checksum", "1234")], end=False)
        client.data(stream, b"body", end=True)
        client.expect_malformed(stream)


@check("9113 §8.3")
def a_pseudo_field_in_trailers(target):
    """Trailers have no pseudo-fields."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.data(stream, b"body")
        client.trailers(stream, [(":path", "/other")])
        client.expect_malformed(stream)


@check("9113 §8.2.1")
def an_upper_case_name_in_trailers(target):
    """What names may be holds for trailers too."""
    with Client(target) as client:
        stream = client.request("POST", end=False)
        client.data(stream, b"body")
        client.trailers(stream, [("X-Checksum", "1234")])
        client.expect_malformed(stream)


@check("9113 §8.1")
def an_answer_to_head_has_no_content(target):
    """HEAD is answered by a head that ends the stream."""
    with Client(target) as client:
        state = client.expect_answer(client.request("HEAD", "/download/1000"))
        if state.body:
            raise Failed(f"{len(state.body)} bytes of content")


@check("9113 §8.1")
def continue_is_an_interim_answer(target):
    """Who expects 100-continue gets it, if at all, before the answer and without an end of the stream."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("expect", "100-continue"), ("content-length", "4")], end=False)
        # Nobody has to send it, or to wait for it.
        client.expect_nothing_else()
        client.data(stream, b"body", end=True)
        state = client.expect_answer(stream)
        others = [status for status, _ in state.interim if status != 100]
        if others:
            raise Failed(f"interim answers {others}")


# ---- 8.1.1: lengths ----------------------------------------------------------------------------------------


@check("9113 §8.1.1")
def a_content_length_of_more_than_comes(target):
    """content-length that is more than the DATA adds up to is malformed."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("content-length", "5")], end=False)
        client.data(stream, b"body", end=True)
        client.expect_malformed(stream)


@check("9113 §8.1.1")
def a_content_length_of_less_than_comes(target):
    """content-length that is less than the DATA adds up to is malformed."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("content-length", "3")], end=False)
        client.data(stream, b"bo")
        client.data(stream, b"dy", end=True)
        client.expect_malformed(stream)


@check("9113 §8.1.1")
def a_content_length_and_no_content(target):
    """content-length above 0 on HEADERS that end the stream is malformed."""
    malformed_with(target, ("content-length", "1"))


@check("9113 §8.1.1")
def a_content_length_and_trailers_too_soon(target):
    """Trailers end the content: content-length of more is malformed."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("content-length", "5")], end=False)
        client.data(stream, b"body")
        client.trailers(stream, [("x-checksum", "1234")])
        client.expect_malformed(stream)


@check("9113 §8.1.1")
def a_content_length_of_nothing(target):
    """content-length of 0 with and without DATA is right."""
    with Client(target) as client:
        client.expect_answer(client.request("POST", extra=[("content-length", "0")]))
        stream = client.request("POST", extra=[("content-length", "0")], end=False)
        client.data(stream, end=True)
        client.expect_answer(stream)


@check("9110 §8.6")
def two_lengths(target):
    """Two content-lengths that differ are malformed."""
    with Client(target) as client:
        fields = client.fields("POST", extra=[("content-length", "4"), ("content-length", "5")])
        stream = client.open(fields, end=False)
        client.data(stream, b"body", end=True)
        client.expect_malformed(stream)


@check("9110 §8.6")
def lengths_that_are_no_numbers(target):
    """content-length is digits and nothing else."""
    for value in ["+4", "-4", "0x4", "4 ", "4,5", "4;", "", "18446744073709551620"]:
        with Client(target) as client:
            stream = client.request("POST", extra=[("content-length", value)], end=False)
            client.data(stream, b"body", end=True)
            try:
                client.expect_malformed(stream)
            except Failed as why:
                raise Failed(f"content-length {value!r}: {why}") from None


# ---- 8.2: fields -------------------------------------------------------------------------------------------


@check("9113 §8.2.1")
def an_upper_case_name(target):
    """Names are lower-case: anything else is malformed."""
    malformed_with(target, ("X-Upper", "yes"))


@check("9113 §8.2.1")
def names_with_characters_that_names_do_not_have(target):
    """Names of controls, spaces, bytes above 0x7e or a colon are malformed, and so is none at all."""
    for name in ["", "x y", "x\ty", "x\0", "x\ny", "x\r\ny", "x\x7f", "x\xe4", "x:y", "x: y\r\nevil"]:
        try:
            malformed_with(target, (name, "value"))
        except Failed as why:
            raise Failed(f"name {name!r}: {why}") from None


@check("9113 §8.2.1")
def values_with_line_ends(target):
    """Values with NUL, LF or CR anywhere are malformed."""
    for value in ["a\0b", "a\nb", "a\rb", "\n", "a\r\nx-evil: yes", "a\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"]:
        try:
            malformed_with(target, ("x-value", value))
        except Failed as why:
            raise Failed(f"value {value!r}: {why}") from None


@check("9113 §8.2.1")
def values_with_white_space_around(target):
    """Values that begin or end with a space or tab are malformed."""
    for value in [" a", "a ", "\ta", "a\t", " "]:
        try:
            malformed_with(target, ("x-value", value))
        except Failed as why:
            raise Failed(f"value {value!r}: {why}") from None


@check("9113 §8.2.1")
def unusual_fields_that_are_right(target):
    """Empty values, bytes above 0x7f in them, and every character that a name may have."""
    with Client(target) as client:
        extra = [("x-empty", ""), ("x-bytes", "\xc5\xbc\xc3\xb3\xc5\x82w"), ("x-tab", "a\tb")]
        client.expect_answer(client.request(extra=[*extra, ("!#$%&'*+-.^`|~0a", "1")]))


@check("9113 §8.2.2")
def fields_of_a_connection(target):
    """Fields that are about a connection of HTTP/1.1 are malformed."""
    wrong = [
        ("connection", "close"), ("connection", "x-mine"), ("proxy-connection", "keep-alive"),
        ("keep-alive", "timeout=5"), ("upgrade", "websocket"), ("transfer-encoding", "chunked"),
    ]
    for name, value in wrong:
        try:
            malformed_with(target, (name, value))
        except Failed as why:
            raise Failed(f"{name}: {value}: {why}") from None


@check("9113 §8.2.2")
def a_transfer_encoding_with_content(target):
    """transfer-encoding is malformed also where a body follows that looks like it."""
    with Client(target) as client:
        stream = client.request("POST", extra=[("transfer-encoding", "chunked")], end=False)
        client.data(stream, b"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n", end=True)
        client.expect_malformed(stream)


@check("9113 §8.2.2")
def te_of_trailers(target):
    """te may be there, if it is `trailers`."""
    with Client(target) as client:
        client.expect_answer(client.request(extra=[("te", "trailers")]))


@check("9113 §8.2.2")
def te_of_anything_else(target):
    """te of anything but `trailers` is malformed."""
    for value in ["gzip", "trailers, deflate;q=0.5", "chunked"]:
        try:
            malformed_with(target, ("te", value))
        except Failed as why:
            raise Failed(f"te: {value}: {why}") from None


@check("9113 §8.2.3")
def crumbs_of_cookies(target):
    """Several cookie fields are one value with `; ` between them for whoever speaks HTTP/1.1."""
    with Client(target) as client:
        crumbs = [("cookie", "a=b"), ("x-between", "1"), ("cookie", "c=d"), ("cookie", "e=f")]
        state = client.expect_answer(client.request("POST", "/crumbs", extra=crumbs))
        try:
            headers = json.loads(state.body)["headers"]
        except (ValueError, KeyError, TypeError):
            return  # It does not tell what it was asked; that it answered is all there is to see.
        if headers.get("cookie") != "a=b; c=d; e=f":
            raise Failed(f"the dyno sees cookie: {headers.get('cookie')}")


# ---- 8.3: pseudo-fields ------------------------------------------------------------------------------------


@check("9113 §8.3")
def a_pseudo_field_after_a_field(target):
    """All pseudo-fields come before the first other field."""
    with Client(target) as client:
        *first, path = client.fields()
        client.expect_malformed(client.open([*first, ("x-field", "1"), path]))


@check("9113 §8.3")
def unknown_pseudo_fields(target):
    """Pseudo-fields that are not defined are malformed."""
    for name in [":scheme2", ":proto", ":"]:
        with Client(target) as client:
            client.expect_malformed(client.open([(name, "x"), *client.fields()]))


@check("9113 §8.3")
def a_pseudo_field_of_answers(target):
    """:status in a request is malformed."""
    with Client(target) as client:
        client.expect_malformed(client.open([*client.fields(), (":status", "200")]))


@check("9113 §8.3")
def a_pseudo_field_twice(target):
    """A pseudo-field that comes twice is malformed, be it with the same value."""
    for name in [":method", ":scheme", ":path", ":authority"]:
        with Client(target) as client:
            fields = client.fields()
            twice = next(it for it in fields if it[0] == name)
            try:
                client.expect_malformed(client.open([*fields, twice]))
            except Failed as why:
                raise Failed(f"two of {name}: {why}") from None


@check("9113 §8.3.1")
def no_method(target):
    """A request without :method is malformed."""
    malformed_without(target, ":method")


@check("9113 §8.3.1")
def no_scheme(target):
    """A request without :scheme is malformed."""
    malformed_without(target, ":scheme")


@check("9113 §8.3.1")
def no_path(target):
    """A request without :path is malformed."""
    malformed_without(target, ":path")


@check("9113 §8.3.1")
def an_empty_path(target):
    """:path is never empty."""
    malformed_without(target, ":path", "")


@check("9113 §8.3.1")
def paths_that_are_none(target):
    """:path begins with a slash, and has nothing that would end it in a request line."""
    wrong = ["evil", "http://evil/", "?x", "/a b", "/ HTTP/1.1\r\nHost: evil", "/\0", "/\n", "/\x7f", "*"]
    for path in wrong:
        try:
            malformed_without(target, ":path", path)
        except Failed as why:
            raise Failed(f":path {path!r}: {why}") from None


@check("9113 §8.3.1")
def methods_that_are_none(target):
    """:method is a token."""
    for method in ["", "GET ", "GET / HTTP/1.1\r\nx: y", "GE\0T", "G/T", "GET\r"]:
        try:
            malformed_without(target, ":method", method)
        except Failed as why:
            raise Failed(f":method {method!r}: {why}") from None


@check("9113 §8.3.1")
def schemes_that_are_none(target):
    """:scheme is letters, digits, `+`, `-` and `.`; it begins with a letter (RFC 3986 §3.1)."""
    for scheme in ["", "ht tp", "http://evil/?", "http\r\nx: y", "1http"]:
        try:
            malformed_without(target, ":scheme", scheme)
        except Failed as why:
            raise Failed(f":scheme {scheme!r}: {why}") from None


@check("9113 §8.3.1")
def authorities_that_are_none(target):
    """:authority is a host and a port: no path, no white space."""
    for authority in ["localhost/evil", "local host", "localhost\r\nx: y", "localhost:port"]:
        try:
            malformed_without(target, ":authority", authority)
        except Failed as why:
            raise Failed(f":authority {authority!r}: {why}") from None


@check("9113 §8.3.1")
def an_authority_with_a_user(target):
    """:authority has no user; as the Host that it would become for a dyno, it is refused (RFC 9112 §3.2)."""
    malformed_without(target, ":authority", f"user@{target.authority}")


@check("9113 §8.3.1")
def a_host_instead_of_an_authority(target):
    """A request that was HTTP/1.1 once may have host and no :authority."""
    with Client(target) as client:
        fields = [it for it in client.fields() if it[0] != ":authority"]
        client.expect_answer(client.open([*fields, ("host", target.authority)]))


@check("9113 §8.3.1")
def a_host_beside_the_authority(target):
    """host that says the same as :authority is no error."""
    with Client(target) as client:
        client.expect_answer(client.request(extra=[("host", target.authority)]))


@check("9113 §8.3.1")
def a_host_that_is_another(target):
    """host that names another than :authority is treated as malformed: two parsers would read two requests."""
    malformed_with(target, ("host", "evil.example"))


@check("9113 §8.3.1")
def neither_host_nor_authority(target):
    """Without either nobody knows whose request it is: refused."""
    malformed_without(target, ":authority")


@check("9113 §8.3.1")
def options_of_the_server(target):
    """OPTIONS may have `*` as :path; it is no error of HTTP/2."""
    with Client(target) as client:
        stream = client.request("OPTIONS", "*")
        client.expect_any_answer(stream)


# ---- 8.5: CONNECT ------------------------------------------------------------------------------------------


@check("9113 §8.5")
def a_connect_with_a_path(target):
    """CONNECT has neither :scheme nor :path (RFC 8441: unless it has :protocol)."""
    with Client(target) as client:
        client.expect_malformed(client.request("CONNECT", end=False))


@check("9113 §8.5")
def a_connect_without_an_authority(target):
    """CONNECT says whom to connect to."""
    with Client(target) as client:
        client.expect_malformed(client.open([(":method", "CONNECT")], end=False))


@check("9113 §8.5")
def no_tunnel_to_anywhere(target):
    """A server that is no forward proxy does not open tunnels: CONNECT is refused, by any answer above 2xx or a
    reset, and the connection goes on."""
    with Client(target) as client:
        stream = client.open([(":method", "CONNECT"), (":authority", "localhost:22")], end=False)
        state = client.streams[stream]
        client.read_until(lambda: state.status is not None or state.reset is not None, "a refusal")
        if state.status is not None and state.status < 400:
            raise Failed(f"answered {state.status}")
        if state.reset is None:
            client.reset(stream)
        client.expect_alive()


# ---- how large ---------------------------------------------------------------------------------------------


@check("9113 §10.5.1")
def a_head_that_is_too_large(target):
    """A head of 512 KiB is refused, by an answer or an error, and is not held in memory without a bound."""
    with Client(target) as client:
        stream = client.new_stream()
        client.send_frame(Kind.HEADERS, Flag.END_STREAM, stream, block(client.fields()))
        piece = block([(f"x-{number}", "y" * 8000) for number in range(2)])
        for _ in range(31):
            client.send_frame(Kind.CONTINUATION, 0, stream, piece)
        client.send_frame(Kind.CONTINUATION, Flag.END_HEADERS, stream, piece)
        state = client.streams[stream]
        while state.status is None and state.reset is None:
            it = client.read_frame()
            if it is None or it.kind == Kind.GOAWAY and client.goaway != Code.NO_ERROR:
                return
        if state.status is not None and not 400 <= state.status < 500:
            raise Failed(f"answered {state.status}")
