//! Where clients connect, and who they are.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::config::limits;
use crate::model::{Endpoint, ListenAddr};

/// Who is at the other end of a client's connection.
///
/// Sixteen bytes, since each idle connection holds one: the address in its IPv6 form, unspecified for the
/// peer of a Unix socket, which has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(Ipv6Addr);

impl Peer {
    /// The peer of an accepted socket.
    pub(crate) fn new(addr: Option<SocketAddr>) -> Self {
        Self(match addr.map(|addr| addr.ip()) {
            Some(IpAddr::V6(ip)) => ip,
            Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
            None => Ipv6Addr::UNSPECIFIED,
        })
    }

    /// Its address; a v4 client of a v6 socket is a v4 client. `None` on a Unix socket, whose file
    /// permissions decide who connects: such a peer is trusted.
    pub(crate) fn ip(self) -> Option<IpAddr> {
        (!self.0.is_unspecified()).then(|| self.0.to_canonical())
    }
}

/// What connections know of where they were accepted.
pub(crate) struct Listener {
    /// As bound: with the port that the kernel chose.
    pub(crate) addr: ListenAddr,
    /// As asked for.
    pub(crate) wanted: ListenAddr,
    /// Client connections accepted here and still open.
    pub(crate) connections: AtomicUsize,
    /// No longer wanted: connections close after their next answer.
    pub(crate) closing: AtomicBool,
    /// New connections begin with a TLS handshake.
    tls: AtomicBool,
    /// New connections begin with a PROXY header.
    proxy_protocol: AtomicBool,
}

impl Listener {
    /// Says what connections begin with from now on.
    pub(crate) fn expect(&self, endpoint: &Endpoint) {
        self.tls.store(endpoint.tls, Ordering::Relaxed);
        self.proxy_protocol.store(endpoint.proxy_protocol, Ordering::Relaxed);
    }

    /// Where it is, and what connections begin with.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            addr: self.addr.clone(),
            tls: self.is_tls(),
            proxy_protocol: self.has_proxy_header(),
        }
    }

    /// Whether connections begin with a TLS handshake.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.load(Ordering::Relaxed)
    }

    /// Whether connections begin with a PROXY header.
    pub(crate) fn has_proxy_header(&self) -> bool {
        self.proxy_protocol.load(Ordering::Relaxed)
    }

    /// Whether its connections are TCP's.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.addr, ListenAddr::Tcp(_))
    }

    /// What X-Forwarded-Port says; the scheme's own on a Unix socket.
    pub(crate) fn port(&self) -> u16 {
        match &self.addr {
            ListenAddr::Tcp(addr) => addr.port(),
            ListenAddr::Unix(_) if self.is_tls() => 443,
            ListenAddr::Unix(_) => 80,
        }
    }
}

/// A listening socket; closed on drop.
pub(crate) struct Listening {
    socket: OwnedFd,
    /// The file of a Unix socket that was made here, removed on drop. One that was handed to us
    /// (`LISTEN_FDS`) belongs to whoever made it.
    own_file: Option<PathBuf>,
    pub(crate) listener: Arc<Listener>,
}

impl Listening {
    /// Binds and listens. A Unix socket's file that nobody listens on any more is replaced.
    pub(crate) fn bind(wanted: &ListenAddr) -> io::Result<Self> {
        let socket = match wanted {
            ListenAddr::Tcp(addr) => bind_tcp(*addr)?,
            ListenAddr::Unix(path) => bind_unix(path)?,
        };
        socket.listen(limits::LISTEN_BACKLOG)?;
        let own_file = match wanted {
            ListenAddr::Tcp(_) => None,
            ListenAddr::Unix(path) => Some(path.clone()),
        };
        Self::new(socket.into(), wanted, own_file)
    }

    /// Takes a socket that is listening already (`LISTEN_FDS`), for the address that was asked for.
    pub(crate) fn adopt(socket: OwnedFd, wanted: &ListenAddr) -> io::Result<Self> {
        if !SockRef::from(&socket).is_listener()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the inherited socket does not listen",
            ));
        }
        Self::new(socket, wanted, None)
    }

    fn new(socket: OwnedFd, wanted: &ListenAddr, own_file: Option<PathBuf>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        if matches!(wanted, ListenAddr::Tcp(_)) {
            // Accepted sockets inherit both.
            let tcp = SockRef::from(&socket);
            tcp.set_tcp_nodelay(true)?;
            tcp.set_tcp_notsent_lowat(limits::NOT_SENT_MAX)?;
        }
        let listener = Listener {
            addr: bound_address(&socket)?.unwrap_or_else(|| wanted.clone()),
            wanted: wanted.clone(),
            connections: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            tls: AtomicBool::new(false),
            proxy_protocol: AtomicBool::new(false),
        };
        Ok(Self { socket, own_file, listener: Arc::new(listener) })
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    if addr.is_ipv6() {
        // 0.0.0.0 and [::] on one port must not exclude each other.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run in TIME_WAIT do not keep the port.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let addr = SockAddr::unix(path)?;
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    let refused =
        probe.connect(&addr).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    // Linux refuses connections to any file; only a socket's may be what an earlier run left behind.
    if refused && fs::symlink_metadata(path)?.file_type().is_socket() {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&addr)?;
    Ok(socket)
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(path) = &self.own_file {
            // Somebody else may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}

/// The address that a listening socket is bound to; `None` for a Unix socket without a path.
pub(crate) fn bound_address(socket: &OwnedFd) -> io::Result<Option<ListenAddr>> {
    let addr = SockRef::from(socket).local_addr()?;
    let tcp = addr.as_socket().map(ListenAddr::Tcp);
    Ok(tcp.or_else(|| addr.as_pathname().map(|path| ListenAddr::Unix(path.to_owned()))))
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn accepted_connections_are_sent_to_at_once_and_never_given_much_ahead() {
        let listening = Listening::bind(&ListenAddr::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let ListenAddr::Tcp(addr) = listening.listener.addr.clone() else { unreachable!() };
        let _client = TcpStream::connect(addr).unwrap();
        let accepted = loop {
            match rustix::net::accept(&listening.socket) {
                Ok(accepted) => break accepted,
                Err(error) => assert_eq!(error, rustix::io::Errno::AGAIN),
            }
        };
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), limits::NOT_SENT_MAX);
    }
}
