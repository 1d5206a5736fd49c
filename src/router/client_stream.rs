//! A client's socket, with TLS or without.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::certs::ACME_TLS;
use crate::router::duplex::{Sink, Source};
use crate::router::security::{Security, TlsVersion};
use crate::router::stream::{Peek, Stream};

/// A client's socket.
pub(crate) enum ClientStream {
    Plain(Stream),
    /// The handshake is under way.
    Handshaking(Box<Handshake>),
    Tls(Box<TlsStream<Stream>>),
    /// Its handshake has failed.
    Closed,
}

/// A handshake that is under way.
pub(crate) struct Handshake {
    accept: Accept<Stream>,
    /// Whoever has one of these counts.
    _counted: Rc<()>,
}

/// How a handshake went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshaken {
    /// The client knew a session of ours.
    pub(crate) resumed: bool,
    pub(crate) protocol: Protocol,
}

/// What a handshake agreed on (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Also where the client did not ask.
    Http1,
    Http2,
    /// The handshake was all that the other side came to see (RFC 8737).
    Acme,
}

impl Protocol {
    fn of(alpn: Option<&[u8]>) -> Self {
        match alpn {
            Some(b"h2") => Self::Http2,
            Some(ACME_TLS) => Self::Acme,
            _ => Self::Http1,
        }
    }
}

impl ClientStream {
    /// Begins the handshake. What is allocated for it waits until here: a silent connection costs nothing.
    /// `counted` is let go when it has ended.
    pub(crate) fn start_tls(&mut self, config: &Arc<ServerConfig>, counted: Rc<()>) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Plain(stream) => {
                let accept = TlsAcceptor::from(config.clone()).accept(stream);
                Self::Handshaking(Box::new(Handshake { accept, _counted: counted }))
            }
            other => other,
        };
    }

    /// Ready when the handshake has ended; an error has been told to the client.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Handshaken>> {
        let accepted = match self {
            Self::Handshaking(handshake) => ready!(Pin::new(&mut handshake.accept).poll(cx)),
            Self::Plain(_) | Self::Tls(_) | Self::Closed => {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
        };
        match accepted {
            Ok(stream) => {
                let (_, session) = stream.get_ref();
                let handshaken = Handshaken {
                    resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
                    protocol: Protocol::of(session.alpn_protocol()),
                };
                *self = Self::Tls(Box::new(stream));
                Poll::Ready(Ok(handshaken))
            }
            Err(error) => {
                *self = Self::Closed;
                Poll::Ready(Err(error))
            }
        }
    }

    /// What TLS says; `None` where there is none.
    pub(crate) fn security(&self) -> Option<Security<'_>> {
        let Self::Tls(stream) = self else { return None };
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        };
        Some(Security { version, server_name: session.server_name() })
    }

    /// Whether the reactor has seen anything come, or end; if not, the task is woken when it does.
    pub(crate) fn is_readable(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Plain(stream) => stream.poll_readable(cx).is_ready(),
            Self::Tls(stream) => stream.get_ref().0.poll_readable(cx).is_ready(),
            Self::Handshaking(_) | Self::Closed => false,
        }
    }

    /// Whether the peer has sent or ended anything. With TLS it must be read to be seen: what there is goes
    /// to `scratch`, and its length comes back.
    pub(crate) fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<(Peek, usize)> {
        match self {
            Self::Plain(stream) => stream.poll_peek(cx).map(|seen| (seen, 0)),
            Self::Handshaking(_) | Self::Closed => Poll::Ready((Peek::Reset, 0)),
            Self::Tls(_) => Poll::Ready(match ready!(self.poll_read(cx, scratch)) {
                Ok(0) => (Peek::End, 0),
                Ok(count) => (Peek::Bytes, count),
                Err(_) => (Peek::Reset, 0),
            }),
        }
    }

    /// Says in TLS that nothing follows, before a close that says so in TCP (RFC 8446 §6.1).
    pub(crate) fn say_goodbye(&mut self) {
        if matches!(self, Self::Tls(_)) {
            self.shut_write();
        }
    }

    /// As [`Stream::reset_on_close`].
    pub(crate) fn reset_on_close(&self) {
        if let Some(stream) = self.socket() {
            stream.reset_on_close();
        }
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> Option<&Stream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Handshaking(handshake) => handshake.accept.get_ref(),
            Self::Closed => None,
        }
    }
}

impl Source for ClientStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_read(cx, buffer),
            Self::Tls(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                let read = Pin::new(&mut **stream).poll_read(cx, &mut buffer);
                read.map_ok(|()| buffer.filled().len())
            }
            Self::Handshaking(_) | Self::Closed => Poll::Ready(Ok(0)),
        }
    }
}

impl Sink for ClientStream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Handshaking(_) | Self::Closed => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // TLS takes up to a record more than the socket does.
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Plain(_) | Self::Handshaking(_) | Self::Closed => Poll::Ready(Ok(())),
        }
    }

    fn shut_write(&mut self) {
        if let Self::Tls(stream) = self {
            // Says so in TLS first (close_notify). A socket that is full takes no farewell; its end says
            // enough.
            let mut cx = Context::from_waker(Waker::noop());
            if Pin::new(&mut **stream).poll_shutdown(&mut cx).is_ready() {
                return;
            }
        }
        if let Some(stream) = self.socket() {
            stream.shut_write();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write(&mut self, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_write();
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
