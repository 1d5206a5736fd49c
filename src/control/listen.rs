//! Binding the admin listener and the control socket, and serving behind them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::certs::Ca;
use crate::config::{AdminConfig, limits};
use crate::control::Running;
use crate::control::connection::Answer;
use crate::control::edge::{ApiTls, Edge};
use crate::control::routes::{Listening, admin, control};
use crate::model::ListenAddr;
use crate::private_file;
use crate::shutdown::Shutdown;

/// Why one of the doors could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The admin listener's address.
    #[error("listen on {addr} ([admin] http): {source}")]
    Admin {
        /// The address.
        addr: ListenAddr,
        /// Why.
        source: io::Error,
    },
    /// The Platform API's address.
    #[error("listen on {addr} ([admin] api): {source}")]
    Api {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The control socket's file, or the directory it is in.
    #[error("listen on {} ([admin] socket): {source}", path.display())]
    Socket {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers on the control socket.
    #[error("another dynomesh is running: it answers on {} ([admin] socket)", .0.display())]
    AnotherRuns(PathBuf),
}

/// The bound listeners. Clients may connect from now on; they are answered from [`serve`](Self::serve) on.
pub struct Doors {
    socket: UnixListener,
    socket_file: SocketFile,
    admin: Option<Bound>,
    api: Option<TcpListener>,
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Doors {
    /// Binds both. Call it inside a runtime.
    pub fn bind(config: &AdminConfig) -> Result<Self, ControlError> {
        let (socket, socket_file) =
            bind_unix(&config.socket).map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => ControlError::AnotherRuns(config.socket.clone()),
                _ => ControlError::Socket { path: config.socket.clone(), source },
            })?;
        let bind = |addr: &ListenAddr| {
            bind_admin(addr).map_err(|source| ControlError::Admin { addr: addr.clone(), source })
        };
        let admin = config.http.as_ref().map(bind).transpose()?;
        let api = config
            .api
            .map(|addr| bind_tcp(addr).map_err(|source| ControlError::Api { addr, source }));
        Ok(Self { socket, socket_file, admin, api: api.transpose()? })
    }

    /// Where the admin listener is, with the port that the kernel chose.
    pub fn admin_addr(&self) -> Option<ListenAddr> {
        match self.admin.as_ref()? {
            Bound::Tcp(listener) => listener.local_addr().ok().map(ListenAddr::Tcp),
            Bound::Unix(_, file) => Some(ListenAddr::Unix(file.0.clone())),
        }
    }

    /// Where the Platform API answers, with the port that the kernel chose.
    pub fn api_addr(&self) -> Option<SocketAddr> {
        self.api.as_ref()?.local_addr().ok()
    }

    /// Answers until the shutdown begins, on the Platform API's port by this TLS, too. The files of unix sockets are
    /// removed then.
    pub fn serve(self, running: &Arc<Running>, tls: ApiTls, shutdown: &Shutdown) {
        const MAX: usize = limits::ADMIN_CONNECTIONS_MAX;
        let state_dir = running.config.load().state_dir.clone();
        let listening = Listening { api: self.api_addr(), ca: Ca::file_in(&state_dir), state_dir };
        let file = Some(self.socket_file);
        spawn_accept(self.socket, file, MAX, control(running.clone(), listening), shutdown);
        if let Some(listener) = self.api {
            let edge = Edge::new(running, tls);
            spawn_accept(listener, None, limits::API_CONNECTIONS_MAX, edge, shutdown);
        }
        match self.admin {
            None => {}
            Some(Bound::Tcp(listener)) => {
                spawn_accept(listener, None, MAX, admin(running.clone()), shutdown);
            }
            Some(Bound::Unix(listener, file)) => {
                spawn_accept(listener, Some(file), MAX, admin(running.clone()), shutdown);
            }
        }
    }
}

/// The file of a listening unix socket, removed on drop.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone with its directory; either way it is not there any more.
        let _ = fs::remove_file(&self.0);
    }
}

fn bind_admin(addr: &ListenAddr) -> io::Result<Bound> {
    match addr {
        ListenAddr::Tcp(addr) => bind_tcp(*addr).map(Bound::Tcp),
        ListenAddr::Unix(path) => {
            bind_unix(path).map(|(listener, file)| Bound::Unix(listener, file))
        }
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    // Not tokio's bind, which is async for the sake of names.
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Listens on a socket file that only this user may open. A file that nobody listens behind any more (after
/// a kill -9) is replaced; one that somebody answers behind is [`io::ErrorKind::AddrInUse`].
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(dir) = path.parent() {
        private_file::make_dir(dir)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    // Whatever else has that name is not ours to remove: bind says so then.
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile(path.to_owned());
    // Before listen: until then nobody can connect, whatever the umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(limits::ADMIN_CONNECTIONS_MAX as i32)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
    Ok((listener, file))
}

/// What both kinds of listener do.
trait Accept: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<Self::Stream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<Self::Stream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Accepts until the shutdown begins, as many connections at a time as `max`.
fn spawn_accept<L: Accept>(
    listener: L,
    file: Option<SocketFile>,
    max: usize,
    answer: impl Answer<L::Stream>,
    shutdown: &Shutdown,
) {
    let inner = shutdown.clone();
    shutdown.spawn(async move {
        tokio::select! {
            () = accept(listener, Arc::new(Semaphore::new(max)), Arc::new(answer), &inner) => {}
            () = inner.begun() => {}
        }
        drop(file);
    });
}

/// Accepts for ever, as many connections at a time as there are slots. Descriptors are short when accept
/// fails, so it waits as the router does.
async fn accept<L: Accept>(
    listener: L,
    slots: Arc<Semaphore>,
    answer: Arc<impl Answer<L::Stream>>,
    shutdown: &Shutdown,
) {
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok(stream) => {
                let (answer, inner) = (answer.clone(), shutdown.clone());
                shutdown.spawn(async move {
                    answer.answer(stream, inner).await;
                    drop(slot);
                });
            }
            Err(_) => sleep(limits::ACCEPT_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/dynomesh.sock");
        let (listener, file) = bind_unix(&path).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_respected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dynomesh.sock");
        // A listener that is dropped leaves its file, as a killed daemon does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let config = AdminConfig { http: None, api: None, api_names: vec![], socket: path.clone() };
        let doors = Doors::bind(&config).unwrap();
        assert!(
            matches!(Doors::bind(&config), Err(ControlError::AnotherRuns(other)) if other == path)
        );
        drop(doors);
        assert!(Doors::bind(&config).is_ok());
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(bind_unix(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn a_taken_admin_address_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let http = Some(ListenAddr::Tcp(addr));
        let error = Doors::bind(&AdminConfig {
            http,
            api: None,
            api_names: vec![],
            socket: dir.path().join("s"),
        })
        .err()
        .unwrap();
        assert!(
            error.to_string().starts_with(&format!("listen on {addr} ([admin] http): ")),
            "{error}"
        );
    }
}
