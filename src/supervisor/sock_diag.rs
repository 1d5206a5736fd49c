//! Who listens where, and how many wait there, as the kernel knows it (sock_diag(7)).
//!
//! A socket is asked for by the address that a connection would be made to: the kernel looks it up as it would for that
//! connection, in microseconds whatever else the machine does. It is that of the asker's own network. Where several
//! share the address (SO_REUSEPORT), that is one of them, and always the same; whoever wants to know how many wait has
//! the kernel go through all that listen.

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

/// Where one listens: those that share an address have all of it in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    family: u8,
    /// The port and the address, as the kernel has them.
    port: [u8; 2],
    address: [u8; 16],
    /// Nought for all.
    interface: u32,
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const BY_FAMILY: u16 = 20;
const TCP: u8 = 6;
const INET: u8 = 2;
const INET6: u8 = 10;
const LISTEN: u8 = 10;
/// In an answer after its header: family and state, then the ports of both sides and their addresses.
const PORT: usize = HEADER + 4;
const ADDRESS: usize = PORT + 4;
const INTERFACE: usize = ADDRESS + 32;
/// Then a cookie, when it expires, and the queue.
const QUEUE: usize = INTERFACE + 4 + 8 + 4;
/// After that and the other queue, its user.
const USER: usize = QUEUE + 8;
/// The kernel sends no more at once, however much it is asked for.
const PAGE: usize = 32 << 10;

impl SockDiag {
    /// Whoever listens there. `None`: nobody does, or the kernel has no sock_diag for TCP, which looks the same.
    ///
    /// # Errors
    /// The kernel has no sock_diag at all, or does not tell.
    pub(crate) fn listener(&mut self, at: SocketAddr) -> io::Result<Option<Listener>> {
        Ok(self.find(at)?.map(|(_, listener)| listener))
    }

    /// How many wait there, at all listeners among which the kernel spreads those who connect. `None`: nobody listens.
    /// Takes longer than [`listener`](Self::listener), by what it takes the kernel to pass over all other listeners.
    ///
    /// # Errors
    /// As [`listener`](Self::listener).
    pub(crate) fn waiting(&mut self, at: SocketAddr) -> io::Result<Option<u32>> {
        let Some((place, _)) = self.find(at)? else { return Ok(None) };
        let waiting = self.ask(|kernel| {
            send(kernel, &question(REQUEST | DUMP, &place), SendFlags::empty())?;
            let (mut page, mut waiting) = (vec![0; PAGE], 0_u32);
            loop {
                let (_, length) = recv(kernel, &mut page[..], RecvFlags::DONTWAIT)?;
                let mut rest = &page[..length.min(PAGE)];
                while !rest.is_empty() {
                    let (message, next) = split(rest)?;
                    if kind(message)? == DONE {
                        return Ok(waiting);
                    }
                    let there = read(message)?.filter(|(its, _)| *its == place);
                    let more = there.map_or(0, |(_, listener)| listener.waiting);
                    waiting = waiting.saturating_add(more);
                    rest = next;
                }
            }
        })?;
        Ok(Some(waiting))
    }

    /// The same in the network of this process. `None`: nobody listens, or there is no such process.
    ///
    /// # Errors
    /// As [`listener`](Self::listener), and where that network may not be entered.
    pub(crate) fn waiting_in(pid: u32, at: SocketAddr) -> io::Result<Option<u32>> {
        within(pid, |kernel| kernel.waiting(at))
    }

    fn find(&mut self, at: SocketAddr) -> io::Result<Option<(Place, Listener)>> {
        self.ask(|kernel| {
            send(kernel, &question(REQUEST, &Place::from(at)), SendFlags::empty())?;
            let mut answer = [0; 512];
            let (_, length) = recv(kernel, &mut answer[..], RecvFlags::DONTWAIT)?;
            read(&answer[..length.min(512)])
        })
    }

    /// The kernel answers before a question returns, and the next page before one is read: there is nothing to wait for.
    fn ask<T>(&mut self, ask: impl FnOnce(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        let kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => socket_with(
                AddressFamily::NETLINK,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                Some(netlink::SOCK_DIAG),
            )?,
        };
        let answer = ask(&kernel)?;
        // After an error the socket is dropped, so that no answer is taken for that to another question.
        self.kernel = Some(kernel);
        Ok(answer)
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

impl From<SocketAddr> for Place {
    fn from(at: SocketAddr) -> Self {
        let mut address = [0; 16];
        match at.ip() {
            IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => address = ip.octets(),
        }
        let family = if at.is_ipv4() { INET } else { INET6 };
        Self { family, port: at.port().to_be_bytes(), address, interface: 0 }
    }
}

/// For the socket that a connection to this place leads to, where none is there already; with [`DUMP`] for all of its
/// family that listen at its port.
fn question(flags: u16, place: &Place) -> Vec<u8> {
    let mut question = Vec::with_capacity(72);
    question.extend_from_slice(&72_u32.to_ne_bytes());
    question.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    question.extend_from_slice(&flags.to_ne_bytes());
    // Its number and its sender: nobody else asks on this socket.
    question.extend_from_slice(&[0; 8]);
    question.extend_from_slice(&[place.family, TCP, 0, 0]);
    question.extend_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    question.extend_from_slice(&place.port);
    // The other side's port.
    question.extend_from_slice(&[0; 2]);
    question.extend_from_slice(&place.address);
    // The other side's address.
    question.extend_from_slice(&[0; 16]);
    question.extend_from_slice(&place.interface.to_ne_bytes());
    // Whichever socket it is: INET_DIAG_NOCOOKIE.
    question.extend_from_slice(&[0xff; 8]);
    question
}

fn short() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

fn bytes<const N: usize>(answer: &[u8], at: usize) -> io::Result<[u8; N]> {
    answer.get(at..).and_then(|it| it.first_chunk().copied()).ok_or_else(short)
}

fn word(answer: &[u8], at: usize) -> io::Result<u32> {
    bytes(answer, at).map(u32::from_ne_bytes)
}

fn kind(answer: &[u8]) -> io::Result<u16> {
    bytes(answer, 4).map(u16::from_ne_bytes)
}

/// The first of some messages, and those after it, which begin at a multiple of four.
fn split(messages: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let length = word(messages, 0)? as usize;
    let message = messages.get(..length).filter(|it| it.len() >= HEADER).ok_or_else(short)?;
    Ok((message, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn read(answer: &[u8]) -> io::Result<Option<(Place, Listener)>> {
    if kind(answer)? == ERROR {
        let number = word(answer, HEADER)?.cast_signed();
        let error = io::Error::from_raw_os_error(number.saturating_neg());
        return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    }
    let listener = Listener { waiting: word(answer, QUEUE)?, user: word(answer, USER)? };
    let [family, state] = bytes(answer, HEADER)?;
    let (port, address) = (bytes(answer, PORT)?, bytes(answer, ADDRESS)?);
    let place = Place { family, port, address, interface: word(answer, INTERFACE)? };
    Ok((state == LISTEN).then_some((place, listener)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::net::sockopt::set_socket_reuseport;
    use rustix::net::{bind, listen};

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
                assert_eq!(kernel.waiting(at).unwrap(), waiting, "{address}");
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

    /// A listener that shares its address with others.
    fn sharing(at: SocketAddr) -> io::Result<TcpListener> {
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseport(&socket, true)?;
        bind(&socket, &at)?;
        listen(&socket, 128)?;
        Ok(socket.into())
    }

    #[test]
    fn who_waits_is_counted_at_all_that_share_an_address_and_at_no_other() {
        let mut kernel = SockDiag::default();
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            // A machine may have no IPv6.
            let Ok(first) = sharing(address.parse().unwrap()) else { continue };
            let _second = sharing(first.local_addr().unwrap()).unwrap();
            let port = first.local_addr().unwrap().port();
            let [at, other] = [1, 9].map(|last| SocketAddr::from(([127, 0, 0, last], port)));
            let _other = sharing(other).unwrap();
            let connect = |to| TcpStream::connect(to).unwrap();
            let _clients: Vec<_> = (0..40).map(|_| connect(at)).chain([connect(other)]).collect();
            assert_eq!(kernel.waiting(at).unwrap(), Some(40), "{address}");
            assert_eq!(kernel.waiting(other).unwrap(), Some(1), "{address}");
            let one = kernel.listener(at).unwrap().unwrap().waiting;
            assert!((1..40).contains(&one), "{one}: the kernel has not spread them");
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
        assert_eq!(SockDiag::waiting_in(pid, at).unwrap(), Some(1));
        assert_eq!(on_loopback(pid, at).unwrap(), None, "it listens where it should");
        let elsewhere = SocketAddr::from(([127, 0, 0, 9], at.port()));
        assert_eq!(on_loopback(pid, elsewhere).unwrap(), Some(at));
        drop(listener);
        assert_eq!(on_loopback(pid, elsewhere).unwrap(), None);
        assert_eq!(SockDiag::waiting_in(u32::MAX, at).unwrap(), None);
    }

    #[test]
    fn answers_that_are_cut_short_are_refused() {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(question(REQUEST, &Place::from(at)).len(), 72);
        for length in 0..USER + 4 {
            assert!(read(&[7; USER + 4][..length]).is_err(), "{length}");
        }
        let message = [&20_u32.to_ne_bytes()[..], &[7; 16]].concat();
        assert_eq!(split(&message).unwrap(), (&message[..], &[][..]));
        assert!((0..20).all(|length| split(&message[..length]).is_err()));
        assert!(split(&[0; 20]).is_err(), "it would never end");
    }
}
