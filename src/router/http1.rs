//! A client that speaks HTTP/1.1: it has its connection to itself.

use std::io;
use std::task::{Context, Poll, ready};

use crate::router::client_stream::ClientStream;
use crate::router::duplex::{Sink, Source};
use crate::router::security::Security;
use crate::router::stream::Peek;
use crate::router::transport::{AnswerKind, FieldSink, Transport};
use crate::wire::{BadChunk, ChunkedDecoder, Piece, RequestBody};

/// Its connection. Holds no buffer while nothing is under way.
pub(crate) struct Http1 {
    pub(crate) stream: ClientStream,
    /// Read and not yet used: the beginning of a head, of a body, or of a pipelined request.
    pub(crate) input: Vec<u8>,
}

impl Source for Http1 {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.input.is_empty() {
            return self.stream.poll_read(cx, buffer);
        }
        let count = self.input.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        if count == self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..count);
        }
        Poll::Ready(Ok(count))
    }
}

impl Sink for Http1 {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn shut_write(&mut self) {
        self.stream.shut_write();
    }
}

impl Transport for Http1 {
    const FRAMED: bool = true;
    const IS_CONNECTION: bool = true;
    const PROTOCOL: &'static str = "http1.1";
    const SWITCHED: u16 = 101;

    fn security(&self) -> Option<Security<'_>> {
        self.stream.security()
    }

    fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    fn unread(&mut self, rest: &[u8]) {
        self.input.splice(..0, rest.iter().copied());
    }

    fn connection(&self) -> Option<u32> {
        None
    }

    fn is_followed(&self, body: RequestBody) -> bool {
        match body {
            RequestBody::None => self.has_input(),
            RequestBody::Length(length) => self.input.len() as u64 > length,
            RequestBody::Chunked => false,
        }
    }

    fn take_body(&mut self, body: RequestBody) -> bool {
        match body {
            RequestBody::None => true,
            RequestBody::Length(length) => {
                let whole = length <= self.input.len() as u64;
                self.input.drain(..(length as usize).min(self.input.len()));
                whole
            }
            RequestBody::Chunked => {
                let mut decoder = ChunkedDecoder::new();
                let mut rest = &self.input[..];
                loop {
                    match decoder.next(&mut rest) {
                        Ok(Piece::Data(_)) => {}
                        Ok(Piece::End) => {
                            self.input = rest.to_vec();
                            return true;
                        }
                        Ok(Piece::More) | Err(_) => return false,
                    }
                }
            }
        }
    }

    fn trailers(&mut self) -> Result<Vec<u8>, BadChunk> {
        Ok(Vec::new())
    }

    fn poll_peek(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Peek> {
        let (seen, count) = ready!(self.stream.poll_peek(cx, scratch));
        self.input.extend_from_slice(&scratch[..count]);
        Poll::Ready(seen)
    }

    fn answer(
        &mut self,
        out: &mut Vec<u8>,
        _: AnswerKind,
        compose: impl FnOnce(&mut dyn FieldSink),
    ) {
        compose(out);
        out.extend_from_slice(b"\r\n");
    }

    fn ends(&mut self, _: &[u8]) {}

    fn finish(&mut self) {}

    fn break_off(&mut self, looks_whole: bool) {
        if looks_whole {
            self.stream.reset_on_close();
        }
    }
}
