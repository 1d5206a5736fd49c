//! What the service manager is told: systemd's notification protocol, sd_notify(3).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// Tells the service manager how the daemon fares, where there is one.
#[derive(Clone)]
pub(in crate::daemon) struct Notifier(Option<SocketAddr>);

impl Notifier {
    /// For the socket that `$NOTIFY_SOCKET` names: a path, or `@name` for an abstract one.
    pub(in crate::daemon) fn new(notify_socket: Option<OsString>) -> io::Result<Self> {
        let addr = |name: OsString| match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        notify_socket.filter(|name| !name.is_empty()).map(addr).transpose().map(Self)
    }

    /// All is in force: after the start, and after each reload, refused or not.
    pub(in crate::daemon) fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload begins. The time lets the manager tell this reload's READY from an earlier one's.
    pub(in crate::daemon) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end begins.
    pub(in crate::daemon) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        let Some(addr) = &self.0 else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            // A manager that does not read must not hold up the control runtime.
            socket.set_nonblocking(true)?;
            socket.send_to_addr(message.as_bytes(), addr)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn check(socket: &UnixDatagram, name: OsString) {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let notifier = Notifier::new(Some(name)).unwrap();
        notifier.ready();
        assert_eq!(received(socket), "READY=1");
        notifier.reloading();
        let message = received(socket);
        let micros = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        notifier.stopping();
        assert_eq!(received(socket), "STOPPING=1");
    }

    #[test]
    fn a_socket_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        check(&UnixDatagram::bind(&path).unwrap(), path.into());
    }

    #[test]
    fn an_abstract_socket_is_told() {
        let name = format!("dynomesh-notify-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        check(&UnixDatagram::bind_addr(&addr).unwrap(), format!("@{name}").into());
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        for name in [None, Some(OsString::new())] {
            Notifier::new(name).unwrap().ready();
        }
    }
}
