//! A connection to a dyno, whichever protocol it speaks.

use std::io;
use std::task::{Context, Poll};

use crate::router::duplex::{Sink, Source};
use crate::router::http2::DynoConnection;
use crate::router::stream::{Peek, Stream};
use crate::table::Dyno;
use crate::wire;

/// A connection to a dyno.
pub(crate) enum DynoStream {
    Http1(Stream),
    /// Of HTTP/1.1 only the heads' text is left: bodies travel without framing.
    Http2(Box<DynoConnection>),
}

impl DynoStream {
    /// Connects, and greets where that is to be done.
    pub(crate) async fn connect(dyno: &Dyno, http2: bool) -> io::Result<Self> {
        let stream = Stream::connect(dyno.addr()).await?;
        if http2 {
            DynoConnection::greet(stream).await.map(Box::new).map(Self::Http2)
        } else {
            Ok(Self::Http1(stream))
        }
    }

    /// Whether bodies travel in HTTP/1.1's framing.
    pub(crate) fn is_framed(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    /// Appends a piece of a body whose length is not known beforehand.
    pub(crate) fn frame(&self, out: &mut Vec<u8>, data: &[u8]) {
        match self {
            Self::Http1(_) => wire::write_chunk(out, data),
            Self::Http2(_) => out.extend_from_slice(data),
        }
    }

    /// Appends the end of such a body, which is written next.
    pub(crate) fn frame_end(&mut self, out: &mut Vec<u8>, trailers: &[u8]) {
        match self {
            Self::Http1(_) => wire::write_last_chunk(out, trailers),
            Self::Http2(connection) => connection.ends(trailers),
        }
    }

    /// Whether it may carry another request: the dyno has neither ended it nor sent what nobody asked for.
    pub(crate) fn is_idle(&mut self) -> bool {
        match self {
            Self::Http1(stream) => stream.peek() == Peek::Silent,
            Self::Http2(connection) => connection.is_alive(),
        }
    }

    /// The bytes that are written next, all of them, are the last of a body whose length was known.
    pub(crate) fn ends(&mut self) {
        if let Self::Http2(connection) = self {
            connection.ends(&[]);
        }
    }

    /// The request's last byte has been written.
    pub(crate) fn finish(&mut self, cx: &mut Context<'_>) {
        if let Self::Http2(connection) = self {
            connection.finish(cx);
        }
    }

    /// The trailer fields of an answer that has been read to its end, as lines, where they are apart from it.
    pub(crate) fn trailers(&mut self) -> Vec<u8> {
        match self {
            Self::Http1(_) => Vec::new(),
            Self::Http2(connection) => connection.trailers(),
        }
    }
}

impl Source for DynoStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(stream) => stream.poll_read(cx, buffer),
            Self::Http2(connection) => connection.poll_read(cx, buffer),
        }
    }
}

impl Sink for DynoStream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Http1(stream) => stream.poll_write(cx, bytes),
            Self::Http2(connection) => connection.poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither keeps anything that it has not promised to send.
        Poll::Ready(Ok(()))
    }

    fn shut_write(&mut self) {
        match self {
            Self::Http1(stream) => stream.shut_write(),
            Self::Http2(connection) => connection.shut_write(),
        }
    }
}
