//! Trailers over HTTP/2, as bytes: a pseudo-field makes a request malformed however it is written, and all else
//! goes on (RFC 9113 §8.1).

use crate::support::{App, Frame, Frames, Mesh};

const ENDS: u8 = Frame::END_HEADERS | Frame::END_STREAM;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
const FRAME_SIZE_ERROR: u32 = 6;

/// A POST with a body of `body`, which puts its `:path` into the table of fields: index 62, as the newest.
fn post(stream: u32) -> [Frame; 2] {
    let fields = [b"\x83\x86\x44\x09/trailers\x01\x0e", &b"shop.localhost"[..]].concat();
    [
        Frame::new(Frame::HEADERS, Frame::END_HEADERS, stream, &fields),
        Frame::new(Frame::DATA, 0, stream, b"body"),
    ]
}

fn trailers(stream: u32, fields: &[u8]) -> Vec<Frame> {
    vec![Frame::new(Frame::HEADERS, ENDS, stream, fields)]
}

fn continued(stream: u32, pieces: [&[u8]; 2]) -> Vec<Frame> {
    vec![
        Frame::new(Frame::HEADERS, Frame::END_STREAM, stream, pieces[0]),
        Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, stream, pieces[1]),
    ]
}

/// What a dyno that prints its trailers has printed.
async fn printed(frames: &mut Frames) -> String {
    let answer = frames.until(Frame::DATA).await;
    String::from_utf8(answer.payload).unwrap()
}

#[tokio::test]
async fn a_pseudo_field_in_trailers_is_malformed_however_it_is_written() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut frames = Frames::connect(&mesh).await;
    let mut stream = 1;
    for (how, bad) in [
        ("as it stands in the static table", trailers(1, b"\x84")),
        ("with a name of the static table", trailers(1, b"\x04\x05/evil")),
        ("by letters", trailers(1, b"\x00\x05:path\x05/evil")),
        ("by letters, into the table", trailers(1, b"\x40\x05:path\x05/evil")),
        ("by letters that are compressed", trailers(1, b"\x00\x84\xb9\x58\xd3\x3f\x05/evil")),
        ("as it stands in the dynamic table", trailers(1, b"\xbe")),
        ("with a name of the dynamic table", trailers(1, b"\x0f\x2f\x05/evil")),
        ("of an answer", trailers(1, b"\x88")),
        ("behind another field", trailers(1, b"\x00\x04fine\x03yes\x84")),
        ("before another field", trailers(1, b"\x84\x00\x04fine\x03yes")),
        ("behind an update of the table's size", trailers(1, b"\x3f\xe1\x1f\x84")),
        ("in a frame of its own", continued(1, [b"", b"\x84"])),
        ("in two frames", continued(1, [b"\x00\x05:pa", b"th\x05/evil"])),
        ("padded", vec![Frame::new(Frame::HEADERS, ENDS | PADDED, 1, b"\x02\x84\0\0")]),
        (
            "with a priority",
            vec![Frame::new(Frame::HEADERS, ENDS | PRIORITY, 1, b"\0\0\0\0\x10\x84")],
        ),
    ] {
        let bad = bad.into_iter().map(|frame| Frame { stream, ..frame });
        frames.send(post(stream).into_iter().chain(bad)).await;
        let end = frames.until(Frame::RST_STREAM).await;
        assert_eq!((end.stream, &end.payload[..]), (stream, &PROTOCOL_ERROR[..]), "{how}");
        stream += 2;
    }
    frames.send(post(stream).into_iter().chain(trailers(stream, b"\x00\x04fine\x03yes"))).await;
    assert_eq!(printed(&mut frames).await, "Fine: yes\r\n", "the connection is as before");
}

#[tokio::test]
async fn trailers_are_passed_on_however_they_are_written() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut frames = Frames::connect(&mesh).await;
    let mut stream = 1;
    for (good, expected) in [
        (trailers(1, b"\x40\x04fine\x03yes"), "Fine: yes\r\n"),
        // That one is in the table, behind the next request's path.
        (trailers(1, b"\xbf"), "Fine: yes\r\n"),
        (trailers(1, b"\x20\x3f\xe1\x1f\x00\x04fine\x03yes"), "Fine: yes\r\n"),
        (trailers(1, b""), ""),
        (continued(1, [b"\x00\x04fi", b"ne\x03yes"]), "Fine: yes\r\n"),
        (
            vec![Frame::new(
                Frame::HEADERS,
                ENDS | PADDED | PRIORITY,
                1,
                b"\x03\0\0\0\0\x10\x00\x04fine\x03yes\0\0\0",
            )],
            "Fine: yes\r\n",
        ),
        // What is acceptable was said in front.
        (trailers(1, b"\x00\x0eaccept-charset\x04utf8\x00\x04fine\x03yes"), "Fine: yes\r\n"),
    ] {
        let good = good.into_iter().map(|frame| Frame { stream, ..frame });
        frames.send(post(stream).into_iter().chain(good)).await;
        if expected.is_empty() {
            assert_eq!(frames.until(Frame::HEADERS).await.stream, stream);
        } else {
            assert_eq!(printed(&mut frames).await, expected, "on stream {stream}");
        }
        stream += 2;
    }
}

/// RFC 9113 §4.2. What came before is answered.
#[tokio::test]
async fn a_frame_without_the_length_of_its_type_ends_the_connection() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for bad in [
        Frame::new(Frame::PING, 0, 0, b"1234567"),
        Frame::new(Frame::WINDOW_UPDATE, 0, 0, b"123"),
        Frame::new(Frame::RST_STREAM, 0, 1, b"12345"),
        Frame::new(Frame::SETTINGS, 0, 0, b"12345"),
        Frame::new(Frame::SETTINGS, Frame::ACK, 0, b"123456"),
    ] {
        let mut frames = Frames::connect(&mesh).await;
        frames.send([Frame::get(1, "/")]).await;
        while !frames.next().await.ends_stream() {}
        frames.send([bad.clone()]).await;
        assert_eq!(frames.goaway().await, FRAME_SIZE_ERROR, "{bad:?}");
        frames.ended().await;
    }
    // Nobody waits for the streams of such a connection.
    let mut frames = Frames::connect(&mesh).await;
    frames.send([Frame::get(1, "/sleep?ms=60000"), Frame::new(Frame::PING, 0, 0, b"")]).await;
    assert_eq!(frames.goaway().await, FRAME_SIZE_ERROR);
    frames.ended().await;
    assert_eq!(mesh.metrics().await.get("dynomesh_http2_floods_total", &[]), 0.0);
}
