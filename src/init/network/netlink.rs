//! What is asked of the kernel's networking, as the bytes in which it takes it (rtnetlink(7)), and a socket to ask
//! over. Knows nothing of dynos.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, send, socket_with};

/// A socket of the network in which it was opened, wherever its process goes.
#[derive(Debug)]
pub struct Netlink {
    kernel: OwnedFd,
}

/// What the kernel is asked for. Interfaces are named by their number.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// A pair of interfaces (veth(4)): one here, its peer in another network.
    NewPair {
        /// The one here.
        name: &'a str,
        /// Its hardware address.
        mac: [u8; 6],
        /// The other one.
        peer_name: &'a str,
        /// Its hardware address.
        peer_mac: [u8; 6],
        /// The network in which it is.
        peer_network: BorrowedFd<'a>,
    },
    /// The interface works from now on.
    SetUp(u32),
    /// A text beside the interface, for people.
    SetAlias(u32, &'a str),
    /// Whether what arrives at the interface for somebody else is passed on; it must come from where answers to
    /// it would go, and may not say which way it wants to take.
    SetForwarding(u32, bool),
    /// The interface gets no IPv6 address by itself.
    WithoutIpv6(u32),
    /// The interface has this address, in a network with a prefix of this length.
    AddAddress(u32, Ipv4Addr, u8),
    /// What no other route is for goes there.
    AddDefaultRoute(Ipv4Addr),
    /// Nothing in this network is reached, unless a route says more. The number tells routes to it apart.
    AddUnreachable(Ipv4Addr, u8, u32),
    /// The same no more.
    RemoveUnreachable(Ipv4Addr, u8, u32),
}

impl Netlink {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        let family = AddressFamily::NETLINK;
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is 0, which is what a socket speaks where nothing is said.
        let kernel = socket_with(family, SocketType::RAW, flags, None)?;
        Ok(Self { kernel })
    }

    /// The number of an interface of this network.
    ///
    /// # Errors
    /// There is none of this name (ENODEV).
    pub fn index(&self, interface: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.kernel, interface)?)
    }

    /// Asks for this, and waits until it is done.
    ///
    /// # Errors
    /// What the kernel has against it.
    pub fn ask(&self, request: &Request<'_>) -> io::Result<()> {
        send(&self.kernel, &request.print(), SendFlags::empty())?;
        let mut answer = [0; ANSWER_MAX];
        // The kernel answers before the question returns: there is nothing to wait for.
        let (_, length) = recv(&self.kernel, &mut answer[..], RecvFlags::DONTWAIT)?;
        read(&answer[..length.min(ANSWER_MAX)])
    }
}

/// An answer repeats the question that it refuses.
const ANSWER_MAX: usize = 4096;

// linux/netlink.h
const HEADER: usize = 16;
const ERROR: u16 = 2;
/// NLM_F_REQUEST and NLM_F_ACK.
const ASKED: u16 = 1 | 4;
/// NLM_F_CREATE and NLM_F_EXCL.
const NEW: u16 = 0x400 | 0x200;

// linux/rtnetlink.h
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_PRIORITY: u16 = 6;
const TABLE_MAIN: u8 = 254;
const BY_AN_ADMINISTRATOR: u8 = 4;
const UNICAST: u8 = 1;
const UNREACHABLE: u8 = 7;

// linux/if_link.h, linux/veth.h, linux/if.h
const LINK_MAC: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const LINK_ALIAS: u16 = 20;
const LINK_OF_FAMILIES: u16 = 26;
const LINK_NETWORK: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const PEER: u16 = 1;
const UP: u32 = 1;

// linux/if_link.h, linux/ip.h, linux/socket.h
const INET: u8 = 2;
const INET6: u8 = 10;
const INET_SETTINGS: u16 = 1;
const FORWARDING: u16 = 1;
const REVERSE_PATH_FILTER: u16 = 8;
const ACCEPT_SOURCE_ROUTE: u16 = 9;
const INET6_ADDRESSES: u16 = 8;
const NO_ADDRESSES: u8 = 1;

// linux/if_addr.h
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

impl Request<'_> {
    /// The bytes of the datagram.
    fn print(&self) -> Vec<u8> {
        match *self {
            Self::NewPair { name, mac, peer_name, peer_mac, peer_network } => {
                let peer = |it: &mut Message| {
                    it.bytes.extend_from_slice(&link(0, 0));
                    it.text(LINK_NAME, peer_name);
                    it.attribute(LINK_MAC, &peer_mac);
                    it.attribute(LINK_NETWORK, &peer_network.as_raw_fd().to_ne_bytes());
                };
                let mut message = Message::new(NEW_LINK, NEW, &link(0, 0));
                message.text(LINK_NAME, name);
                message.attribute(LINK_MAC, &mac);
                message.nest(LINK_INFO, |it| {
                    it.text(INFO_KIND, "veth");
                    it.nest(INFO_DATA, |it| it.nest(PEER, peer));
                });
                message.finish()
            }
            Self::SetUp(index) => Message::new(NEW_LINK, 0, &link(index, UP)).finish(),
            Self::SetAlias(index, alias) => {
                let mut message = Message::new(NEW_LINK, 0, &link(index, 0));
                message.attribute(LINK_ALIAS, alias.as_bytes());
                message.finish()
            }
            Self::SetForwarding(index, forwarding) => {
                let settings = [
                    (FORWARDING, u32::from(forwarding)),
                    (REVERSE_PATH_FILTER, 1),
                    (ACCEPT_SOURCE_ROUTE, 0),
                ];
                of_family(index, INET, |it| {
                    it.nest(INET_SETTINGS, |it| {
                        settings.iter().for_each(|(key, value)| it.number(*key, *value));
                    });
                })
            }
            Self::WithoutIpv6(index) => {
                of_family(index, INET6, |it| it.attribute(INET6_ADDRESSES, &[NO_ADDRESSES]))
            }
            Self::AddAddress(index, address, prefix) => {
                let [a, b, c, d] = index.to_ne_bytes();
                let mut message = Message::new(NEW_ADDRESS, NEW, &[INET, prefix, 0, 0, a, b, c, d]);
                message.attribute(ADDRESS_LOCAL, &address.octets());
                message.attribute(ADDRESS, &address.octets());
                message.finish()
            }
            Self::AddDefaultRoute(gateway) => {
                let mut message = Message::new(NEW_ROUTE, NEW, &route(0, UNICAST));
                message.attribute(ROUTE_GATEWAY, &gateway.octets());
                message.finish()
            }
            Self::AddUnreachable(to, prefix, priority) => {
                unreachable(NEW_ROUTE, NEW, to, prefix, priority)
            }
            Self::RemoveUnreachable(to, prefix, priority) => {
                unreachable(DELETE_ROUTE, 0, to, prefix, priority)
            }
        }
    }
}

/// `struct ifinfomsg`: any family and kind, this number; and of the flags, those that are to be set.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// `struct rtmsg`.
fn route(prefix: u8, kind: u8) -> [u8; 12] {
    [INET, prefix, 0, 0, TABLE_MAIN, BY_AN_ADMINISTRATOR, 0, kind, 0, 0, 0, 0]
}

fn unreachable(deed: u16, flags: u16, to: Ipv4Addr, prefix: u8, priority: u32) -> Vec<u8> {
    let mut message = Message::new(deed, flags, &route(prefix, UNREACHABLE));
    message.attribute(ROUTE_DESTINATION, &to.octets());
    message.number(ROUTE_PRIORITY, priority);
    message.finish()
}

/// A change of what an interface has of one family.
fn of_family(index: u32, family: u8, settings: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::new(NEW_LINK, 0, &link(index, 0));
    message.nest(LINK_OF_FAMILIES, |it| it.nest(family.into(), settings));
    message.finish()
}

/// A datagram in the making. Attributes begin at multiples of four bytes.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        // Its length comes last; then its number and its sender, since nobody else asks on this socket.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(ASKED | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Self { bytes }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |it| it.bytes.extend_from_slice(value));
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A text with its end.
    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    /// An attribute whose value is what is written by this.
    fn nest(&mut self, kind: u16, value: impl FnOnce(&mut Self)) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        value(self);
        let length = self.bytes.len() - begin;
        let length = u16::try_from(length).expect("names, addresses and an alias of 255 bytes");
        self.bytes[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("shorter than its attributes may be");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// Reads whether it was done.
fn read(answer: &[u8]) -> io::Result<()> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let kind = answer.get(4..6).and_then(|it| it.first_chunk::<2>()).ok_or_else(short)?;
    if u16::from_ne_bytes(*kind) != ERROR {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let number = answer.get(HEADER..).and_then(|it| it.first_chunk::<4>()).ok_or_else(short)?;
    match i32::from_ne_bytes(*number) {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    /// The attributes of a datagram, or of a part of it: each kind with its value.
    fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
            found.push((u16::from_ne_bytes([bytes[2], bytes[3]]), &bytes[4..length]));
            bytes = &bytes[length.next_multiple_of(4)..];
        }
        found
    }

    /// Kind, flags and what follows the header.
    fn open(message: &[u8]) -> (u16, u16, &[u8]) {
        assert_eq!(u32::from_ne_bytes(*message.first_chunk().unwrap()) as usize, message.len());
        let word = |at: usize| u16::from_ne_bytes([message[at], message[at + 1]]);
        (word(4), word(6), &message[HEADER..])
    }

    /// As `ip route add unreachable 10.213.0.0/16 metric 7` sends it, but for the number of the message.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_route_is_what_ip_would_send() {
        let message = Request::AddUnreachable(Ipv4Addr::new(10, 213, 0, 0), 16, 7).print();
        let expected = [
            &[44, 0, 0, 0, 24, 0, 0x05, 0x06, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 16, 0, 0, 254, 4, 0, 7, 0, 0, 0, 0],
            &[8, 0, 1, 0, 10, 213, 0, 0],
            &[8, 0, 6, 0, 7, 0, 0, 0],
        ];
        assert_eq!(message, expected.concat());
    }

    #[test]
    fn a_pair_is_nested_three_deep() {
        let network = File::open("/dev/null").unwrap();
        let pair = Request::NewPair {
            name: "dm0ad50001",
            mac: [2, 0, 0, 0, 0, 1],
            peer_name: "eth0",
            peer_mac: [2, 0, 0, 0, 0, 2],
            peer_network: network.as_fd(),
        };
        let message = pair.print();
        let (kind, flags, body) = open(&message);
        assert_eq!((kind, flags), (NEW_LINK, ASKED | NEW));
        let outer = attributes(&body[16..]);
        assert_eq!(outer[0], (LINK_NAME, &b"dm0ad50001\0"[..]));
        assert_eq!(outer[1], (LINK_MAC, &[2, 0, 0, 0, 0, 1][..]));
        assert_eq!((outer.len(), outer[2].0), (3, LINK_INFO));
        let info = attributes(outer[2].1);
        assert_eq!((info[0], info[1].0), ((INFO_KIND, &b"veth\0"[..]), INFO_DATA));
        let data = attributes(info[1].1);
        assert_eq!((data.len(), data[0].0), (1, PEER));
        let fd = network.as_raw_fd().to_ne_bytes();
        let expected = [
            (LINK_NAME, &b"eth0\0"[..]),
            (LINK_MAC, &[2, 0, 0, 0, 0, 2][..]),
            (LINK_NETWORK, &fd[..]),
        ];
        assert_eq!(attributes(&data[0].1[16..]), expected);
    }

    #[test]
    fn what_is_forwarded_is_a_setting_of_the_interface() {
        let message = Request::SetForwarding(9, true).print();
        let (kind, flags, body) = open(&message);
        assert_eq!((kind, flags), (NEW_LINK, ASKED));
        assert_eq!(body[4..8], 9_u32.to_ne_bytes());
        let families = attributes(&body[16..]);
        assert_eq!((families.len(), families[0].0), (1, LINK_OF_FAMILIES));
        let inet = attributes(families[0].1);
        assert_eq!((inet.len(), inet[0].0), (1, u16::from(INET)));
        let settings = attributes(attributes(inet[0].1)[0].1);
        let expected = [(FORWARDING, 1_u32), (REVERSE_PATH_FILTER, 1), (ACCEPT_SOURCE_ROUTE, 0)];
        let expected = expected.map(|(key, value)| (key, value.to_ne_bytes()));
        assert!(
            settings.iter().map(|it| (it.0, it.1)).eq(expected.iter().map(|it| (it.0, &it.1[..])))
        );
    }

    #[test]
    fn an_answer_is_an_error_or_none() {
        let answer = |kind: u16, number: i32| {
            let mut bytes = vec![0; HEADER];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&number.to_ne_bytes());
            bytes
        };
        read(&answer(ERROR, 0)).unwrap();
        assert_eq!(read(&answer(ERROR, -17)).unwrap_err().raw_os_error(), Some(17));
        assert_eq!(read(&answer(3, 0)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        for length in 0..HEADER + 4 {
            assert!(read(&answer(ERROR, 0)[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn the_kernel_is_asked_and_answers() {
        let kernel = Netlink::open().unwrap();
        assert_eq!(kernel.index("lo").unwrap(), 1);
        let error = kernel.index("none-of-this").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()));
        // Nobody has an interface of this number, whoever asks.
        assert!(kernel.ask(&Request::SetUp(u32::MAX >> 1)).is_err());
    }

    proptest! {
        #[test]
        fn every_attribute_is_found_again(values in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..9)) {
            let mut message = Message::new(1, 0, &[0; 16]);
            values.iter().for_each(|(kind, value)| message.attribute(*kind, value));
            let bytes = message.finish();
            prop_assert_eq!(bytes.len() % 4, 0);
            let expected = values.iter().map(|(kind, value)| (*kind, &value[..])).collect::<Vec<_>>();
            prop_assert_eq!(attributes(&open(&bytes).2[16..]), expected);
        }
    }
}
