//! A connected socket, of a client or of a dyno, TCP or Unix.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::model::DynoAddr;

/// One socket, registered with the reactor of the worker that owns it.
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// Boxed, so that a connection is no larger than TCP's.
    Unix(Box<UnixStream>),
}

/// What a look at a peer that should be silent showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    /// Nothing has come.
    Silent,
    /// Bytes are there.
    Bytes,
    /// The peer has ended its side.
    End,
    /// The connection is broken.
    Reset,
}

impl Stream {
    /// Registers an accepted, non-blocking socket with the current worker's reactor.
    pub(crate) fn accepted(socket: OwnedFd, is_tcp: bool) -> io::Result<Self> {
        if is_tcp {
            TcpStream::from_std(socket.into()).map(Self::Tcp)
        } else {
            UnixStream::from_std(socket.into()).map(Box::new).map(Self::Unix)
        }
    }

    /// Connects to a dyno.
    pub(crate) async fn connect(addr: &DynoAddr) -> io::Result<Self> {
        match addr {
            DynoAddr::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            DynoAddr::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?.into())),
        }
    }

    /// Reads what is there. A read that does not fill `buffer` costs no second system call to learn so.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        };
        read.map_ok(|()| buffer.filled().len())
    }

    /// Ready when the reactor has seen something to read, or an end. No system call.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Writes what the socket takes.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Looks at what has come without taking it, until `judge` has seen enough; it is asked again when more has
    /// come. An error where `scratch` is too small for what it wants to see.
    pub(crate) fn poll_look<T>(
        &self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        mut judge: impl FnMut(&[u8]) -> Option<T>,
    ) -> Poll<io::Result<T>> {
        let mut look = || {
            let (_, length) = rustix::net::recv(self.as_fd(), &mut *scratch, RecvFlags::PEEK)?;
            let verdict = if length == 0 { None } else { judge(&scratch[..length]) };
            match verdict {
                Some(verdict) => Ok(verdict),
                None if length == 0 || length == scratch.len() => {
                    Err(io::ErrorKind::InvalidData.into())
                }
                // Waits for more, as if nothing were there.
                None => Err(io::ErrorKind::WouldBlock.into()),
            }
        };
        loop {
            ready!(self.poll_readable(cx))?;
            let seen = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, &mut look),
                Self::Unix(stream) => stream.try_io(Interest::READABLE, &mut look),
            };
            match seen {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                seen => return Poll::Ready(seen),
            }
        }
    }

    /// Looks whether the peer has sent or ended anything, and has the task woken when it does. No system
    /// call while the reactor has seen nothing.
    pub(crate) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<Peek> {
        loop {
            match self.poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Peek::Reset),
                Poll::Ready(Ok(())) => match self.peek() {
                    Peek::Silent => continue,
                    seen => return Poll::Ready(seen),
                },
            }
        }
    }

    /// As [`poll_peek`](Self::poll_peek), now, without being woken.
    pub(crate) fn peek(&self) -> Peek {
        let look = || {
            let (_, length) = rustix::net::recv(self.as_fd(), &mut [0_u8; 1], RecvFlags::PEEK)?;
            Ok(length)
        };
        let seen = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, look),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, look),
        };
        match seen {
            Ok(0) => Peek::End,
            Ok(_) => Peek::Bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Peek::Silent,
            Err(_) => Peek::Reset,
        }
    }

    /// Has the close reset the connection: an answer that ends with it must not look whole when it is cut.
    pub(crate) fn reset_on_close(&self) {
        // A socket that is already broken is reset as it is.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    /// Ends our side; the peer reads an end of file, and may still send.
    pub(crate) fn shut_write(&self) {
        // A socket that is already broken needs no end.
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Write);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
