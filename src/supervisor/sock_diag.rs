//! Who listens where, and how many wait there, as the kernel knows it (sock_diag(7)).
//!
//! One socket is asked for at a time, by the address that a connection would be made to: the kernel looks it up as it
//! would for that connection, in microseconds whatever else the machine does. It is that of the asker's own network.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use rustix::net::{recv, send, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the kernel is asked. Opened when the first question comes.
#[derive(Default)]
pub(crate) struct SockDiag {
    kernel: Option<OwnedFd>,
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Connections that wait until it accepts them.
    pub(crate) waiting: u32,
    /// Whose socket it is.
    pub(crate) user: u32,
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
const HEADER: usize = 16;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const BY_FAMILY: u16 = 20;
const TCP: u8 = 6;
const INET: u8 = 2;
const INET6: u8 = 10;
const LISTEN: u8 = 10;
/// In an answer after its header: family and state, the addresses, when it expires; then the queue.
const QUEUE: usize = HEADER + 4 + 48 + 4;
/// After that and the other queue, its user.
const USER: usize = QUEUE + 8;

impl SockDiag {
    /// Whoever listens there. `None`: nobody does, or the kernel has no sock_diag for TCP, which looks the same.
    ///
    /// # Errors
    /// The kernel has no sock_diag at all, or does not tell.
    pub(crate) fn listener(&mut self, at: SocketAddr) -> io::Result<Option<Listener>> {
        let kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => socket_with(
                AddressFamily::NETLINK,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                Some(netlink::SOCK_DIAG),
            )?,
        };
        send(&kernel, &question(at), SendFlags::empty())?;
        let mut answer = [0; 512];
        // The kernel answers before the question returns: there is nothing to wait for.
        let (_, length) = recv(&kernel, &mut answer[..], RecvFlags::DONTWAIT)?;
        // After an error the socket is dropped, so that no answer is taken for that to another question.
        self.kernel = Some(kernel);
        read(&answer[..length.min(512)])
    }

    /// The same in the network of this process. `None`: nobody listens, or there is no such process.
    ///
    /// # Errors
    /// As [`listener`](Self::listener), and where that network may not be entered.
    pub(crate) fn listener_in(pid: u32, at: SocketAddr) -> io::Result<Option<Listener>> {
        within(pid, |kernel| kernel.listener(at))
    }
}

/// Where on its loopback this process listens, if it does so at this address' port and not at the address: who connects to
/// the address is refused.
pub(crate) fn on_loopback(pid: u32, at: SocketAddr) -> io::Result<Option<SocketAddr>> {
    let loopbacks = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    within(pid, |kernel| {
        if kernel.listener(at)?.is_some() {
            return Ok(None);
        }
        for loopback in loopbacks.map(|ip| SocketAddr::new(ip, at.port())) {
            if kernel.listener(loopback)?.is_some() {
                return Ok(Some(loopback));
            }
        }
        Ok(None)
    })
}

/// Asks in the network of this process. `None`: there is no such process.
///
/// A thread goes there, and ends there: a socket that is kept would keep the network, with its interfaces.
fn within<T: Send>(
    pid: u32,
    ask: impl FnOnce(&mut SockDiag) -> io::Result<Option<T>> + Send,
) -> io::Result<Option<T>> {
    let network = match File::open(format!("/proc/{pid}/ns/net")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        network => network?,
    };
    thread::scope(|scope| {
        let there = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            ask(&mut SockDiag::default())
        };
        let asking = thread::Builder::new().name("sock-diag".into()).spawn_scoped(scope, there)?;
        asking.join().unwrap_or_else(|_| Err(io::Error::other("a defect in asking")))
    })
}

/// For the socket that a connection to this address leads to, where none is there already.
fn question(at: SocketAddr) -> Vec<u8> {
    let mut question = Vec::with_capacity(72);
    question.extend_from_slice(&72_u32.to_ne_bytes());
    question.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    question.extend_from_slice(&REQUEST.to_ne_bytes());
    // Its number and its sender: nobody else asks on this socket.
    question.extend_from_slice(&[0; 8]);
    let family = if at.is_ipv4() { INET } else { INET6 };
    question.extend_from_slice(&[family, TCP, 0, 0]);
    question.extend_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    question.extend_from_slice(&at.port().to_be_bytes());
    // The other side's port.
    question.extend_from_slice(&[0; 2]);
    let mut address = [0; 16];
    match at.ip() {
        IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => address = ip.octets(),
    }
    question.extend_from_slice(&address);
    // The other side's address, and any interface.
    question.extend_from_slice(&[0; 16 + 4]);
    // Whichever socket it is: INET_DIAG_NOCOOKIE.
    question.extend_from_slice(&[0xff; 8]);
    question
}

fn read(answer: &[u8]) -> io::Result<Option<Listener>> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let word = |at: usize| answer.get(at..)?.first_chunk::<4>().map(|it| u32::from_ne_bytes(*it));
    let kind = answer.get(4..6).and_then(|it| it.first_chunk::<2>()).ok_or_else(short)?;
    if u16::from_ne_bytes(*kind) == ERROR {
        let number = word(HEADER).ok_or_else(short)?.cast_signed();
        let error = io::Error::from_raw_os_error(number.saturating_neg());
        return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    }
    let waiting = word(QUEUE).ok_or_else(short)?;
    let user = word(USER).ok_or_else(short)?;
    Ok((answer[HEADER + 1] == LISTEN).then_some(Listener { waiting, user }))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn user() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn who_listens_is_known_and_who_waits_is_counted() {
        let mut kernel = SockDiag::default();
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let at = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
            let mut check = |waiting: Option<u32>| {
                let expected = waiting.map(|waiting| Listener { waiting, user: user() });
                assert_eq!(kernel.listener(at).unwrap(), expected, "{address}");
            };
            check(Some(0));
            let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
            check(Some(3));
            let accepted = listener.accept().unwrap();
            check(Some(2));
            drop((clients.pop(), accepted, listener));
            check(None);
        }
    }

    /// Only root may enter a network; without, there is nothing to see.
    #[test]
    fn the_network_of_a_process_is_asked_from_within() {
        let pid = std::process::id();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        if user() != 0 {
            return;
        }
        let _client = TcpStream::connect(at).unwrap();
        let expected = Listener { waiting: 1, user: 0 };
        assert_eq!(SockDiag::listener_in(pid, at).unwrap(), Some(expected));
        assert_eq!(on_loopback(pid, at).unwrap(), None, "it listens where it should");
        let elsewhere = SocketAddr::from(([127, 0, 0, 9], at.port()));
        assert_eq!(on_loopback(pid, elsewhere).unwrap(), Some(at));
        drop(listener);
        assert_eq!(on_loopback(pid, elsewhere).unwrap(), None);
        assert_eq!(SockDiag::listener_in(u32::MAX, at).unwrap(), None);
    }

    #[test]
    fn answers_that_are_cut_short_are_refused() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(question(at).len(), 72);
        for length in 0..USER + 4 {
            assert!(read(&[7; USER + 4][..length]).is_err(), "{length}");
        }
    }
}
