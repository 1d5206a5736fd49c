//! The socket between an init and its daemon: datagrams in order, descriptors beside them, and an end that is
//! heard when the other side dies (SEQPACKET, unix(7)).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    listen, recvmsg, sendmsg, socket_with, socketpair,
};

use crate::init::message::MESSAGE_MAX;
use crate::init::order::SOCKET_FILE;

/// Descriptors beside one datagram, at most.
const DESCRIPTORS_MAX: usize = 2;
/// Daemons that may wait for the init to look: there is one at a time.
const BACKLOG: i32 = 4;
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A datagram, with what came beside it. Empty: the other side is gone.
#[derive(Debug)]
pub struct Datagram {
    /// The message.
    pub bytes: Vec<u8>,
    /// Closed on exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Both ends of a connection, neither of which blocks.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

/// Waits for daemons in the working directory, which is the dyno's.
pub(in crate::init) fn wait_here() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    bind(&socket, &SocketAddrUnix::new(SOCKET_FILE)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Takes a daemon that waits.
pub(in crate::init) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(accept_with(listener, FLAGS)?)
}

/// Connects to the init whose dyno's directory this is.
pub fn connect(dyno_dir: &Path) -> io::Result<OwnedFd> {
    // Through a descriptor: the path of a socket has 107 bytes, and that of a directory may have more.
    let dir = File::open(dyno_dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd());
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends one datagram. `WouldBlock`: the other side has not read for a while.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(message)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes one datagram. `WouldBlock`: there is none.
pub fn receive(socket: impl AsFd) -> io::Result<Datagram> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    bytes.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Datagram { bytes, descriptors })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn datagrams_stay_apart_and_bring_descriptors() {
        let (one, other) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&one, b"first", &[writer.as_fd()]).unwrap();
        send(&one, b"second", &[]).unwrap();
        drop((one, writer));
        let first = receive(&other).unwrap();
        assert_eq!(first.bytes, b"first");
        let [writer] = <[OwnedFd; 1]>::try_from(first.descriptors).unwrap();
        File::from(writer).write_all(b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        assert_eq!(receive(&other).unwrap().bytes, b"second");
        assert!(receive(&other).unwrap().bytes.is_empty(), "the other side is gone");
    }

    #[test]
    fn neither_side_waits_for_the_other() {
        let (one, other) = pair().unwrap();
        assert_eq!(receive(&one).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let full =
            std::iter::repeat_with(|| send(&one, &[0; MESSAGE_MAX], &[])).find_map(Result::err);
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(receive(&other).unwrap().bytes.len(), MESSAGE_MAX);
    }
}
