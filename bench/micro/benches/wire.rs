//! HTTP/1.1 as bytes: what each request and answer costs before a socket is touched.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dynomesh::config::limits;
use dynomesh::wire::{
    self, ChunkedDecoder, FieldSlots, Frames, HeadScan, Piece, RequestHead, ResponseHead,
};

criterion_group!(benches, heads, chunks, frames);
criterion_main!(benches);

const SMALL_REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
/// What a browser sends.
const BROWSER_REQUEST: &[u8] = b"GET /cart?item=1234&colour=green HTTP/1.1\r\n\
    Host: shop.example.com\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n\
    Referer: https://shop.example.com/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef0123456789abcdef; theme=dark; consent=yes\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Sat, 21 Nov 2026 04:00:00 GMT\r\n\
    Connection: keep-alive\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 12\r\n\
    Set-Cookie: session=0123456789abcdef; Path=/; HttpOnly\r\n\r\n";

/// Finds the end of a head, parses it, and writes the fields that go on.
fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    let mut out = Vec::new();
    for (name, head) in [("small", SMALL_REQUEST), ("browser", BROWSER_REQUEST)] {
        group.bench_function(BenchmarkId::new("request", name), |bencher| {
            bencher.iter(|| request(black_box(head), &mut out));
        });
    }
    group.bench_function("response", |bencher| {
        bencher.iter(|| response(black_box(RESPONSE), &mut out))
    });
    group.finish();
}

fn request(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let end = HeadScan::default().find_end(bytes, limits::REQUEST_HEAD_MAX);
    let end = end.expect("a good head").expect("a whole head");
    let mut slots = FieldSlots::new();
    let head = RequestHead::parse(&bytes[..end], &mut slots).expect("a good head");
    out.clear();
    for field in head.end_to_end() {
        wire::write_field(out, field.name, field.value);
    }
    out.len()
}

fn response(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let end = HeadScan::default().find_end(bytes, limits::RESPONSE_HEAD_MAX);
    let end = end.expect("a good head").expect("a whole head");
    let mut slots = FieldSlots::new();
    let head = ResponseHead::parse(&bytes[..end], &mut slots, false).expect("a good head");
    out.clear();
    for field in head.end_to_end() {
        wire::write_field(out, field.name, field.value);
    }
    out.len()
}

/// Decodes a body of 256 KiB that came in chunks of this size.
fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked");
    let body = vec![b'x'; 256 * 1024];
    for size in [64, 4096, 65_536] {
        let mut encoded = Vec::new();
        for chunk in body.chunks(size) {
            wire::write_chunk(&mut encoded, chunk);
        }
        wire::write_last_chunk(&mut encoded, b"");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("decode, chunk bytes", size), |bencher| {
            bencher.iter(|| decode(black_box(&encoded)));
        });
    }
    group.finish();
}

fn decode(mut input: &[u8]) -> usize {
    let mut decoder = ChunkedDecoder::new();
    let mut length = 0;
    loop {
        match decoder.next(&mut input).expect("good chunks") {
            Piece::Data(data) => length += data.len(),
            Piece::End => return length,
            Piece::More => unreachable!("the last chunk is there"),
        }
    }
}

/// Goes over one read of a WebSocket that came in frames with payloads of this size.
fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket");
    for size in [16_u8, 120] {
        let mut read = Vec::new();
        while read.len() + usize::from(size) + 6 <= limits::READ_FIRST {
            read.extend([0x82, 0x80 | size, 1, 2, 3, 4]);
            read.extend(std::iter::repeat_n(b'x', size.into()));
        }
        group.throughput(Throughput::Bytes(read.len() as u64));
        group.bench_function(BenchmarkId::new("frames, payload bytes", size), |bencher| {
            bencher.iter(|| {
                let mut frames = Frames::default();
                frames.pass(black_box(&read));
                frames.is_between()
            });
        });
    }
    group.finish();
}
