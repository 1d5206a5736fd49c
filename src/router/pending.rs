//! Bytes that a socket has not taken yet. Empty, and without memory, as long as the peer keeps up.

use std::io;
use std::task::{Context, Poll, ready};

use crate::router::duplex::Sink;

/// What is still to be written to one socket.
#[derive(Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    written: usize,
    /// What is pending is the rest of something that was begun.
    begun: bool,
    /// Taken, and not yet with the operating system.
    unflushed: bool,
}

impl From<Vec<u8>> for Pending {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

impl Pending {
    /// Whether everything was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Adds bytes without trying to write them.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes `bytes` after what is pending, straight from where they are; keeps what the socket does not
    /// take. Adds to `moved` whatever it takes of both.
    pub(crate) fn send(
        &mut self,
        sink: &mut impl Sink,
        cx: &mut Context<'_>,
        bytes: &[u8],
        moved: &mut usize,
    ) -> io::Result<()> {
        if !self.is_empty() {
            self.push(bytes);
            return match self.poll_flush(sink, cx, moved) {
                Poll::Ready(written) => written,
                Poll::Pending => Ok(()),
            };
        }
        let mut taken = 0;
        while taken < bytes.len() {
            match sink.poll_write(cx, &bytes[taken..]) {
                Poll::Ready(Ok(count)) => taken += count,
                Poll::Ready(Err(error)) if taken == 0 => return Err(error),
                // The error comes again with the next write.
                Poll::Ready(Err(_)) | Poll::Pending => {
                    self.bytes = bytes[taken..].to_vec();
                    self.begun = taken > 0;
                    break;
                }
            }
        }
        *moved += taken;
        if self.bytes.is_empty() {
            match sink.poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => self.unflushed = true,
            }
        }
        Ok(())
    }

    /// Writes what is pending. Adds to `moved` whatever the socket takes, also when there is more.
    pub(crate) fn poll_flush(
        &mut self,
        sink: &mut impl Sink,
        cx: &mut Context<'_>,
        moved: &mut usize,
    ) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let count = ready!(sink.poll_write(cx, &self.bytes[self.written..]))?;
            self.written += count;
            *moved += count;
        }
        ready!(sink.poll_flush(cx))?;
        *self = Self::default();
        Poll::Ready(Ok(()))
    }

    /// Whether some of what is pending was written: whatever comes next cannot stand in its place.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun || self.written > 0
    }
}
