//! HTTP/2 by hand: every frame is the test's own.

use std::net::SocketAddr;

use crate::support::client::HOST;
use crate::support::{Client, Mesh};

/// What a connection begins with (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame (RFC 9113 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A connection of frames.
pub(crate) struct Frames {
    client: Client,
}

impl Frame {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;

    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;

    /// A frame.
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self { kind, flags, stream, payload: payload.to_vec() }
    }

    /// A GET for the usual host that has no body.
    pub(crate) fn get(stream: u32, target: &str) -> Self {
        let flags = Self::END_HEADERS | Self::END_STREAM;
        Self::new(Self::HEADERS, flags, stream, &get_fields(target))
    }

    /// What a stream is given up with, by its client.
    pub(crate) fn cancel(stream: u32) -> Self {
        Self::new(Self::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
    }

    /// Lets a stream, or with 0 the connection, send so much more.
    pub(crate) fn window(stream: u32, more: u32) -> Self {
        Self::new(Self::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
    }

    /// Lets every stream send so much from its beginning on.
    pub(crate) fn initial_window(bytes: u32) -> Self {
        let setting = [&4_u16.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
        Self::new(Self::SETTINGS, 0, 0, &setting)
    }

    /// As it travels.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let [_, length @ ..] = (self.payload.len() as u32).to_be_bytes();
        let stream = self.stream.to_be_bytes();
        [&length[..], &[self.kind, self.flags], &stream, &self.payload].concat()
    }

    /// How much follows this beginning of a frame.
    fn length(head: &[u8]) -> usize {
        u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
    }

    fn read(head: &[u8], payload: Vec<u8>) -> Self {
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Self { kind: head[3], flags: head[4], stream, payload }
    }

    /// Whether the stream has nothing more to come.
    pub(crate) fn ends_stream(&self) -> bool {
        [Self::DATA, Self::HEADERS].contains(&self.kind) && self.flags & Self::END_STREAM != 0
    }
}

/// The header list of a GET for the usual host: literals that are not indexed (RFC 7541 §6.2.2).
pub(crate) fn get_fields(target: &str) -> Vec<u8> {
    assert!(target.len() < 127, "{target} needs more than a byte for its length");
    // :method GET and :scheme http are in the static table, and the names of :path and :authority.
    let mut fields = vec![0x82, 0x86, 0x04, target.len() as u8];
    fields.extend_from_slice(target.as_bytes());
    fields.extend_from_slice(&[0x01, HOST.len() as u8]);
    fields.extend_from_slice(HOST.as_bytes());
    fields
}

impl From<Client> for Frames {
    /// What its client still has to say is the test's business.
    fn from(client: Client) -> Self {
        Self { client }
    }
}

impl Frames {
    /// Connects, and says preface and settings.
    pub(crate) async fn connect(mesh: &Mesh) -> Self {
        Self::greet(Client::connect(mesh.http()).await).await
    }

    /// As [`connect`](Self::connect), as a reader that can be slow.
    pub(crate) async fn connect_narrow(addr: SocketAddr) -> Self {
        Self::greet(Client::connect_narrow(addr).await).await
    }

    async fn greet(mut client: Client) -> Self {
        client.send(PREFACE).await;
        let mut frames = Self { client };
        frames.send([Frame::new(Frame::SETTINGS, 0, 0, &[])]).await;
        frames
    }

    /// Sends frames at once.
    pub(crate) async fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        self.client.send(written(frames)).await;
    }

    /// Sends frames round after round, until the other side has had enough.
    pub(crate) async fn flood(&mut self, mut round: impl FnMut() -> Vec<Frame>) {
        self.client.send_until_closed(|| written(round())).await;
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Frame {
        let head = self.client.exactly(9).await;
        let payload = self.client.exactly(Frame::length(&head)).await;
        Frame::read(&head, payload)
    }

    /// The next frame, at 60 kB/s.
    pub(crate) async fn next_slowly(&mut self) -> Frame {
        let head = self.client.exactly_slowly(9).await;
        let payload = self.client.exactly_slowly(Frame::length(&head)).await;
        Frame::read(&head, payload)
    }

    /// Reads up to a frame of this kind, and acknowledges nothing on the way.
    pub(crate) async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads up to the GOAWAY that says why; a graceful one comes before it perhaps. Its error code.
    pub(crate) async fn goaway(&mut self) -> u32 {
        loop {
            let frame = self.until(Frame::GOAWAY).await;
            let code = u32::from_be_bytes(frame.payload[4..8].try_into().unwrap());
            if code != 0 {
                return code;
            }
        }
    }

    /// Waits for the connection's end, whatever comes before it.
    pub(crate) async fn ended(mut self) {
        let _ = self.client.rest_and_end().await;
    }
}

fn written(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    frames.into_iter().flat_map(|frame| frame.bytes()).collect()
}
