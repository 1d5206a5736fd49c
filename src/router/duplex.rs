//! Where bytes come from and where they go, whatever is in between.

use std::io;
use std::task::{Context, Poll};

use crate::router::stream::Stream;

/// Where bytes come from.
pub(crate) trait Source {
    /// Reads what is there; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
}

/// Where bytes go.
pub(crate) trait Sink {
    /// Writes what is taken now.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ready when everything that was taken is with the operating system.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends our side; the peer reads an end, and may still send.
    fn shut_write(&mut self);
}

impl Source for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Stream::poll_read(self, cx, buffer)
    }
}

impl Sink for Stream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(self, cx, bytes)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept between a write and the operating system.
        Poll::Ready(Ok(()))
    }

    fn shut_write(&mut self) {
        Stream::shut_write(self);
    }
}
