//! Who listens on a port: as the kernel says when it is asked, or else as its tables of sockets tell it
//! (proc_pid_net(5), `/proc/net/tcp`).

use std::fmt::Write;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::supervisor::sock_diag::SockDiag;

/// The state of a socket that listens.
const LISTEN: &str = "0A";

/// The user whose socket a connection to 127.0.0.1 and this port leads to. `None`: nobody listens there.
pub(crate) fn user(port: u16) -> io::Result<Option<u32>> {
    match SockDiag::default().listener((Ipv4Addr::LOCALHOST, port).into()) {
        Ok(Some(listener)) => Ok(Some(listener.user)),
        // That nobody listens is also what kernels say that cannot be asked.
        Ok(None) | Err(_) => in_tables(port),
    }
}

/// The same by the tables. Takes milliseconds: the kernel looks through all its buckets of connections to fill the
/// page that the listeners are at the beginning of.
fn in_tables(port: u16) -> io::Result<Option<u32>> {
    let v4 = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED];
    let found = find("/proc/net/tcp", &v4.map(|it| local(&it.octets(), port)))?;
    if found.is_some() {
        return Ok(found);
    }
    let v6 = [
        Ipv6Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST.to_ipv6_mapped(),
        Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(),
    ];
    match find("/proc/net/tcp6", &v6.map(|it| local(&it.octets(), port))) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found,
    }
}

fn find(table: &str, locals: &[String]) -> io::Result<Option<u32>> {
    user_in(BufReader::new(File::open(table)?), locals)
}

/// The user of the first listener at one of these addresses.
fn user_in(table: impl BufRead, locals: &[String]) -> io::Result<Option<u32>> {
    for line in table.lines().skip(1) {
        let line = line?;
        // NUMBER: LOCAL REMOTE STATE QUEUES TIMER RETRANSMITS USER …
        let mut fields = line.split_ascii_whitespace();
        let (local, state, user) = (fields.nth(1), fields.nth(1), fields.nth(3));
        if state != Some(LISTEN) {
            return Ok(None);
        }
        if local.is_some_and(|local| locals.iter().any(|it| it == local)) {
            return Ok(user.and_then(|user| user.parse().ok()));
        }
    }
    Ok(None)
}

/// An address as the tables have it: words of four bytes, each as this machine reads it as a number.
fn local(address: &[u8], port: u16) -> String {
    let mut text = String::new();
    for word in address.as_chunks::<4>().0 {
        // A string takes all that is written to it.
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(text, ":{port:04X}");
    text
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_user_of_a_listener_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0200007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 1 1 0
   1: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000 200017        0 1 1 0
   2: 0100007F:4E21 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     9        0 1 1 0
   3: 0100007F:4E22 00000000:0000 0A 00000000:00000000 00:00000000 00000000     9        0 1 1 0
";
        let check = |local: &str, expected| {
            let found = user_in(table.as_bytes(), &[local.to_owned()]).unwrap();
            assert_eq!(found, expected, "{local}");
        };
        check("0100007F:4E20", Some(200_017));
        check("0200007F:4E20", Some(7));
        check("0100007F:4E21", None);
        // Nobody listens behind the first who does not.
        check("0100007F:4E22", None);
        assert_eq!(user_in(&b""[..], &[]).unwrap(), None);
    }

    #[test]
    fn listeners_of_this_machine_are_found() {
        let mine = rustix::process::geteuid().as_raw();
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert_eq!(user(port).unwrap(), Some(mine), "{address}");
            assert_eq!(in_tables(port).unwrap(), Some(mine), "{address}");
            drop(listener);
            assert_eq!(user(port).unwrap(), None, "{address}");
        }
    }
}
