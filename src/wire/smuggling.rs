//! What two parsers could read two ways, row by row, and what it is answered.
//!
//! A row holds what a client sends on a fresh connection: a head, and a body where one is announced.
//! `200` stands for: taken, and passed on in our own words.

use crate::config::limits::REQUEST_HEAD_MAX;
use crate::wire::{
    BadRequest, ChunkedDecoder, FieldSlots, HeadScan, Piece, RequestBody, RequestHead,
    ResponseHead, blank_lines,
};

/// The status with which a client's bytes are met.
fn answer(bytes: &[u8]) -> u16 {
    match take(bytes) {
        Ok(()) => 200,
        Err(status) => status,
    }
}

fn take(bytes: &[u8]) -> Result<(), u16> {
    let refused = |bad: BadRequest| bad.status();
    let bytes = &bytes[blank_lines(bytes).map_err(|bad| refused(bad.into()))?..];
    let end =
        HeadScan::default().find_end(bytes, REQUEST_HEAD_MAX).map_err(|bad| refused(bad.into()))?;
    let (head, mut rest) = bytes.split_at(end.expect("each row holds a whole head"));
    let mut slots = FieldSlots::new();
    let head = RequestHead::parse(head, &mut slots).map_err(refused)?;
    match head.body {
        RequestBody::None => assert!(rest.is_empty(), "a body that is not announced"),
        RequestBody::Length(length) => assert_eq!(rest.len() as u64, length, "a body as announced"),
        RequestBody::Chunked => {
            let mut decoder = ChunkedDecoder::new();
            while let Piece::Data(_) = decoder.next(&mut rest).map_err(|_| 400u16)? {}
            assert_eq!(decoder.next(&mut rest), Ok(Piece::End), "each row holds a whole body");
            assert!(rest.is_empty(), "each row holds one request");
        }
    }
    Ok(())
}

#[track_caller]
fn check(rows: &[(&str, &[u8], u16)]) {
    for (what, bytes, expected) in rows {
        assert_eq!(answer(bytes), *expected, "{what}: {}", bytes.escape_ascii());
    }
}

#[rustfmt::skip]
#[test]
fn where_the_body_ends() {
    check(&[
        ("a length",                         b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200),
        ("a length of nothing",              b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200),
        ("leading zeros are digits",         b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc", 200),
        ("chunks",                           b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200),
        ("chunks, in capitals",              b"POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n", 200),
        ("length, then chunked (CL.TE)",     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400),
        ("chunked, then length (TE.CL)",     b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        ("chunked and a length of 0",        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        ("two lengths that differ",          b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        ("two lengths that agree",           b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("a list of lengths that differ",    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc", 400),
        ("a list of lengths that agree",     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        ("a list of one length",             b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3,\r\n\r\nabc", 400),
        ("an empty length",                  b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
        ("plus",                             b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("minus",                            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        ("hexadecimal",                      b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 400),
        ("a fraction",                       b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc", 400),
        ("two numbers",                      b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 4\r\n\r\nabc", 400),
        ("a grouped number",                 b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n0123456789", 400),
        ("digits beyond ASCII",              b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa3\r\n\r\nabc", 400),
        ("2^64",                             b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
        ("2^64 + 3",                         b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\nabc", 400),
        ("chunked in HTTP/1.0",              b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("no coding at all",                 b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
        ("an unknown coding",                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("identity",                         b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
        ("gzip, then chunked",               b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("gzip, then chunked, in two fields", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        ("chunked is not last",              b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        ("chunked is not last, in two fields", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        ("chunked twice",                    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        ("chunked twice, in two fields",     b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("an empty member",                  b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", 400),
        ("an empty member at the end",       b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400),
        ("chunked with a parameter",         b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 400),
        ("chunked in quotes",                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
        ("chunked after a vertical tab",     b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        ("chunked after a no-break space",   b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", 400),
        ("a space before the colon",         b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("chunked, folded",                  b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        ("a twin of the field is another's", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 200),
    ]);
}

#[rustfmt::skip]
#[test]
fn how_chunks_are_written() {
    let check = |what: &str, body: &[u8], expected| {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(answer(&[head, body].concat()), expected, "{what}: {}", body.escape_ascii());
    };
    check("sizes are hexadecimal",           b"a\r\n0123456789\r\n0\r\n\r\n", 200);
    check("sizes in capitals",               b"A\r\n0123456789\r\n0\r\n\r\n", 200);
    check("sixteen digits",                  b"0000000000000003\r\nabc\r\n0\r\n\r\n", 200);
    check("seventeen digits",                b"00000000000000003\r\nabc\r\n0\r\n\r\n", 400);
    check("a size that wraps 64 bits",       b"10000000000000003\r\nabc\r\n0\r\n\r\n", 400);
    check("zeros are the end too",           b"000\r\n\r\n", 200);
    check("no size",                         b"\r\nabc\r\n0\r\n\r\n", 400);
    check("0x",                              b"0x3\r\nabc\r\n0\r\n\r\n", 400);
    check("plus",                            b"+3\r\nabc\r\n0\r\n\r\n", 400);
    check("minus",                           b"-1\r\nabc\r\n0\r\n\r\n", 400);
    check("a grouped number",                b"0_3\r\nabc\r\n0\r\n\r\n", 400);
    check("a space before the size",         b" 3\r\nabc\r\n0\r\n\r\n", 400);
    check("a space after the size",          b"3 \r\nabc\r\n0\r\n\r\n", 400);
    check("a tab after the size",            b"3\t\r\nabc\r\n0\r\n\r\n", 400);
    check("a size ended by a bare LF",       b"3\nabc\r\n0\r\n\r\n", 400);
    check("a size ended by a bare CR",       b"3\rabc\r\n0\r\n\r\n", 400);
    check("data shorter than its size",      b"4\r\nabc\r\n0\r\n\r\n", 400);
    check("data longer than its size",       b"2\r\nabc\r\n0\r\n\r\n", 400);
    check("no line end after data",          b"3\r\nabc0\r\n\r\n", 400);
    check("a bare LF after data",            b"3\r\nabc\n0\r\n\r\n", 400);
    check("a bare CR after data",            b"3\r\nabc\r0\r\n\r\n", 400);
    check("two bytes for a line end",        b"3\r\nabcXX0\r\n\r\n", 400);
    check("an extension",                    b"3;a=b\r\nabc\r\n0;c\r\n\r\n", 200);
    check("an extension in quotes",          b"3;a=\"b; c\"\r\nabc\r\n0\r\n\r\n", 200);
    check("a space before an extension",     b"3 ;a\r\nabc\r\n0\r\n\r\n", 400);
    check("a bare LF in an extension",       b"3;a\nb\r\nabc\r\n0\r\n\r\n", 400);
    check("a bare CR in an extension",       b"3;a\rb\r\nabc\r\n0\r\n\r\n", 400);
    check("a NUL in an extension",           b"3;\0\r\nabc\r\n0\r\n\r\n", 400);
    check("a last chunk ended by a bare LF", b"0\n\n", 400);
    check("a body ended by a bare LF",       b"0\r\n\n", 400);
    check("a body ended by a bare CR",       b"0\r\n\rX", 400);
    check("a trailer",                       b"0\r\nDigest: a\r\n\r\n", 200);
    check("a trailer without a colon",       b"0\r\nDigest\r\n\r\n", 400);
    check("a trailer, folded",               b"0\r\nDigest: a\r\n b\r\n\r\n", 400);
    check("a trailer ended by a bare LF",    b"0\r\nDigest: a\n\r\n", 400);
    check("a space before a trailer's colon", b"0\r\nDigest : a\r\n\r\n", 400);
}

#[rustfmt::skip]
#[test]
fn for_whom_it_is() {
    check(&[
        ("one host",                         b"GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", 200),
        ("no host",                          b"GET / HTTP/1.1\r\n\r\n", 400),
        ("no host in HTTP/1.0 either",       b"GET / HTTP/1.0\r\n\r\n", 400),
        ("an empty host",                    b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("two hosts",                        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("two hosts that agree",             b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
        ("a list of hosts",                  b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("a host that begins with a space",  b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("a host, folded",                   b"GET / HTTP/1.1\r\nHost: a\r\n\t.b\r\n\r\n", 400),
        ("a host with a user",               b"GET / HTTP/1.1\r\nHost: b@a\r\n\r\n", 400),
        ("a host with a path",               b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("a host with a port of letters",    b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("a host with a port too large",     b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        ("a host beyond ASCII",              b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", 400),
        ("a host that is no text",           b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        ("the whole address",                b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("the whole address, in capitals",   b"GET HTTP://A HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("of another host",                  b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("of another port",                  b"GET http://a:81/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("with a user",                      b"GET http://a@a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("without a host",                   b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("without a Host field",             b"GET http://a/x HTTP/1.1\r\n\r\n", 400),
        ("of another scheme",                b"GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a relative path",                  b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a host alone",                     b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("the server as a whole",            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("the server as a whole, to read",   b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a tunnel",                         b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ]);
}

#[rustfmt::skip]
#[test]
fn how_a_head_is_written() {
    check(&[
        ("blank lines first",                b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("six blank lines first",            b"\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a blank line of a bare LF",        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("bare LFs throughout",              b"GET / HTTP/1.1\nHost: a\n\n", 400),
        ("a bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("a bare LF after a field",          b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("a bare LF for the blank line",     b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("a bare CR in a value",             b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", 400),
        ("a CR too many",                    b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
        ("a NUL in a value",                 b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
        ("a DEL in a value",                 b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", 400),
        ("an escape in a value",             b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n", 400),
        ("a tab in a value",                 b"GET / HTTP/1.1\r\nHost: a\r\nX: b\tc\r\n\r\n", 200),
        ("a value beyond ASCII",             b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n", 200),
        ("an empty value",                   b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", 200),
        ("a folded value",                   b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        ("a line of spaces",                 b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", 400),
        ("a tab before the colon",           b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", 400),
        ("a space in a name",                b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", 400),
        ("a name beyond ASCII",              b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: b\r\n\r\n", 400),
        ("a name in parentheses",            b"GET / HTTP/1.1\r\nHost: a\r\n(X): b\r\n\r\n", 400),
        ("an empty name",                    b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        ("no colon",                         b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        ("a space before everything",        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("two spaces after the method",      b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("two spaces after the target",      b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a space after the version",        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("tabs for spaces",                  b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a space in the target",            b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a target that holds a version",    b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a target beyond ASCII",            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a target that is no text",         b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a control character in the target", b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("no target",                        b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("no version",                       b"GET /\r\nHost: a\r\n\r\n", 400),
        ("a method that is no token",        b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("a method nobody knows",            b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("HTTP/0.9",                         b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("HTTP/1.2",                         b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("HTTP/2 with prior knowledge",      b"PRI * HTTP/2.0\r\n\r\n", 505),
        ("http in lower case",               b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("a version of two digits",          b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        ("a TLS handshake",                  b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400),
    ]);
}

#[rustfmt::skip]
#[test]
fn what_is_asked_of_this_hop() {
    check(&[
        ("to wait for 100",                  b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\na", 200),
        ("to expect nothing",                b"GET / HTTP/1.1\r\nHost: a\r\nExpect:\r\n\r\n", 200),
        ("to expect a wonder",               b"GET / HTTP/1.1\r\nHost: a\r\nExpect: wonder\r\n\r\n", 417),
        ("to wait for 100 and a wonder",     b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, wonder\r\n\r\n", 417),
        ("a websocket",                      b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
        ("an upgrade to nothing",            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", 400),
        ("an upgrade to an empty list",      b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ,\r\n\r\n", 400),
        ("an upgrade to no protocol",        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: web socket\r\n\r\n", 400),
        ("an upgrade in HTTP/1.0",           b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\n\r\n", 200),
        ("options that are no tokens",       b"GET / HTTP/1.1\r\nHost: a\r\nConnection: clo se\r\n\r\n", 400),
        ("to forget a field",                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret\r\nX-Secret: b\r\n\r\n", 200),
        ("to forget too many fields",        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a,b,c,d,e,f,g,h,i\r\n\r\n", 400),
    ]);
}

#[rustfmt::skip]
#[test]
fn sizes_at_their_edges() {
    let check = |what: &str, line: &str, fields: &str, expected| {
        let head = format!("{line}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(answer(head.as_bytes()), expected, "{what}");
    };
    let line = |length: usize| format!("GET /{} HTTP/1.1", "a".repeat(length - "GET / HTTP/1.1".len()));
    check("a request line of 8 KiB",         &line(8192), "", 200);
    check("a byte more",                     &line(8193), "", 414);
    check("a method of 127 bytes",           &format!("{} / HTTP/1.1", "A".repeat(127)), "", 200);
    check("a byte more",                     &format!("{} / HTTP/1.1", "A".repeat(128)), "", 400);
    check("a field of 8 KiB",                &line(99), &format!("X: {}\r\n", "a".repeat(8192 - 3)), 200);
    check("a byte more",                     &line(99), &format!("X: {}\r\n", "a".repeat(8193 - 3)), 431);
    check("a byte more, of white space",     &line(99), &format!("X: a{}\r\n", " ".repeat(8193 - 4)), 431);
    check("a name of 1000 bytes",            &line(99), &format!("{}: a\r\n", "X".repeat(1000)), 200);
    check("a byte more",                     &line(99), &format!("{}: a\r\n", "X".repeat(1001)), 431);
    check("1000 fields",                     &line(99), &"X: a\r\n".repeat(999), 200);
    check("a field more",                    &line(99), &"X: a\r\n".repeat(1000), 431);
    let filled = |length: usize| {
        let rest = length - line(99).len() - "\r\nHost: a\r\n\r\n".len();
        let (whole, last) = (rest / 8000 - 1, rest % 8000 + 8000);
        let field = |length: usize| format!("X: {}\r\n", "a".repeat(length - "X: \r\n".len()));
        field(8000).repeat(whole) + &field(last / 2) + &field(last - last / 2)
    };
    check("a head of 64 KiB",                &line(99), &filled(64 * 1024), 200);
    check("a byte more",                     &line(99), &filled(64 * 1024 + 1), 431);
}

/// The code under which an answer is refused; empty if it is taken.
fn verdict(bytes: &[u8]) -> &'static str {
    use crate::config::limits::RESPONSE_HEAD_MAX;
    let end = match HeadScan::default().find_end(bytes, RESPONSE_HEAD_MAX) {
        Ok(end) => end.expect("each row holds a whole head"),
        Err(bad) => return crate::wire::BadResponse::from(bad).code(),
    };
    ResponseHead::parse(&bytes[..end], &mut FieldSlots::new(), false)
        .err()
        .map_or("", |bad| bad.code())
}

#[rustfmt::skip]
#[test]
fn what_a_dyno_may_say() {
    let check = |what: &str, bytes: &[u8], expected| {
        assert_eq!(verdict(bytes), expected, "{what}: {}", bytes[..bytes.len().min(99)].escape_ascii());
    };
    check("an answer",                       b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "");
    check("no reason",                       b"HTTP/1.1 200 \r\n\r\n", "");
    check("no reason, no space either",      b"HTTP/1.1 200\r\n\r\n", "");
    check("a reason beyond ASCII",           b"HTTP/1.1 200 \xc3\xa9\r\n\r\n", "");
    check("two lengths that agree",          b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", "");
    check("two lengths that differ",         b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "H25");
    check("a list of lengths",               b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n", "H25");
    check("a length with a sign",            b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n", "H25");
    check("a length of letters",             b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", "H25");
    check("chunked and a length",            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "");
    check("gzip, then chunked",              b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "H17");
    check("gzip",                            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "H17");
    check("chunked twice",                   b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", "H17");
    check("chunked in HTTP/1.0",             b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "H17");
    check("a folded field",                  b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "H17");
    check("a space before the colon",        b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n", "H17");
    check("a bare LF",                       b"HTTP/1.1 200 OK\nContent-Length: 3\n\n", "H17");
    check("a bare CR",                       b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "H17");
    check("a NUL",                           b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "H17");
    check("a blank line first",              b"\r\nHTTP/1.1 200 OK\r\n\r\n", "H17");
    check("two spaces",                      b"HTTP/1.1  200 OK\r\n\r\n", "H17");
    check("a status of two digits",          b"HTTP/1.1 20 OK\r\n\r\n", "H17");
    check("a status of four digits",         b"HTTP/1.1 2000 OK\r\n\r\n", "H17");
    check("a status below 100",              b"HTTP/1.1 099 OK\r\n\r\n", "H17");
    check("another protocol",                b"ICY 200 OK\r\n\r\n", "H17");
    check("another version",                 b"HTTP/2.0 200 OK\r\n\r\n", "H17");
    check("no HTTP at all",                  b"Traceback (most recent call last):\r\n\r\n", "H17");
    let long = |start: &str, length: usize| [start.as_bytes(), &vec![b'a'; length - start.len()], b"\r\n\r\n"].concat();
    let field = |start: &str, length: usize| [&b"HTTP/1.1 200 OK\r\n"[..], &long(start, length)].concat();
    check("a status line of 8 KiB",          &long("HTTP/1.1 200 ", 8192), "");
    check("a byte more",                     &long("HTTP/1.1 200 ", 8193), "H25");
    check("a cookie of 8 KiB",               &field("Set-Cookie: ", 8192), "");
    check("a byte more",                     &field("set-cookie: ", 8193), "H25");
    check("a field of 512 KiB",              &field("X: ", 512 * 1024), "");
    check("a byte more",                     &field("X: ", 512 * 1024 + 1), "H25");
    check("a head of more than 1 MiB",       &field("X: ", 1024 * 1024), "H25");
    check("1001 fields",                     format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(1001)).as_bytes(), "H25");
}
