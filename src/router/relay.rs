//! Request and answer on their way, both at once: states `send`, `wait`, `answer` and `deliver`.
//!
//! Each turn is synchronous: read into the worker's scratch, re-frame, write. Bytes are copied aside only
//! when a peer does not take them, and nothing more is read for it until it has.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::config::limits;
use crate::model::Expect;
use crate::router::client::Client;
use crate::router::dyno_stream::DynoStream;
use crate::router::pending::Pending;
use crate::router::pool::Upstream;
use crate::router::reply::Refusal;
use crate::router::request::Request;
use crate::router::retry::{self, Failure, Retry};
use crate::router::transport::{AnswerKind, FieldSink, Transport};
use crate::router::worker::Worker;
use crate::table::{App, Dyno, Lease};
use crate::wire::{ChunkedDecoder, ResponseHeads};

/// An answer that turns the connection into a pipe.
#[derive(Default)]
pub(crate) struct Switched {
    /// What the client is sent first: the head, where it is text, and what came behind it.
    pub(crate) to_client: Vec<u8>,
    /// The length of that head.
    pub(crate) head: usize,
    /// Whether WebSocket is spoken from here on.
    pub(crate) is_websocket: bool,
}

/// How the relaying ended.
pub(crate) enum End {
    /// The whole answer is with the client's socket.
    Answered,
    /// The dyno's connection failed, and the request may be sent again.
    ///
    /// `repeats`: some of the request was with its socket already.
    Again { retry: Retry, cause: Refusal, repeats: bool },
    /// Both sockets are a pipe from now on; these bytes go first.
    Switched(Switched),
    /// The client hung up.
    ClientGone,
    /// It cannot go on, and this is why.
    Refused(Refusal),
}

/// One attempt to have a request answered by one dyno.
pub(crate) struct Relay {
    pub(crate) dyno: Arc<Dyno>,
    /// Slot and connection, until the answer has been read to its end.
    pub(crate) held: Option<Held>,
    pub(crate) reused: bool,
    /// Some of the request was with another dyno's socket already: it is not sent a third time.
    repeated: bool,
    pub(crate) sending: Sending,
    pub(crate) answer: Answer,
    pub(crate) to_dyno: Pending,
    pub(crate) to_client: Pending,
    /// It has had its first turn.
    begun: bool,
    /// Bytes moved on either socket, to see whether a turn got anywhere.
    pub(crate) moved: usize,
    pub(crate) sent_any: bool,
    pub(crate) answered_any: bool,
    pub(crate) interims: u32,
    /// The router has told the client to go on with its body.
    pub(crate) continued: bool,
    pub(crate) watching: bool,
    /// The status that the client was sent.
    pub(crate) status: Option<u16>,
    /// Its head has been given to the client's socket.
    pub(crate) head_out: bool,
    pub(crate) chunk_answer: bool,
    /// For the client to come back to this dyno.
    pub(crate) cookie: Option<Box<str>>,
    pub(crate) keep_client: bool,
    pub(crate) keep_dyno: bool,
    /// The dyno's own `Keep-Alive: timeout`, in seconds.
    pub(crate) dyno_timeout: Option<u32>,
    pub(crate) body_bytes: u64,
    /// The answer's trailer fields, for a client that has them apart from the body.
    pub(crate) trailers: Vec<u8>,
    pub(crate) read_size: usize,
}

/// Slot and connection of an attempt.
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) stream: DynoStream,
}

/// How far the request is.
pub(crate) enum Sending {
    /// This many bytes of the head are with the dyno's socket.
    Head(usize),
    /// This much of the body is to come from the client.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// The body's own bytes are to come, to its end.
    Unframed,
    /// Every byte is with the dyno's socket, or pending for it.
    Done,
    /// The dyno takes no more; what it said before may be its answer.
    Broken,
}

impl Sending {
    /// Whether some of the body is to come from the client.
    pub(crate) fn is_body(&self) -> bool {
        matches!(self, Self::Length(_) | Self::Chunked(_) | Self::Unframed)
    }
}

/// How far the answer is.
pub(crate) enum Answer {
    /// Its head, as far as it has come.
    Head(ResponseHeads),
    /// This much of the body is to come.
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
    /// 101: waits for the request to be whole.
    Switching(Switched),
    Done,
}

impl Relay {
    pub(crate) fn new(
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &App,
        lease: Lease,
        upstream: Upstream,
        repeated: bool,
    ) -> Self {
        let cookie = request.wish.cookie(&client.worker.seal, app, lease.dyno());
        let mut relay = Self {
            dyno: lease.dyno().clone(),
            held: Some(Held { lease, stream: upstream.stream }),
            reused: upstream.reused,
            repeated,
            sending: Sending::Head(0),
            answer: Answer::Head(ResponseHeads::default()),
            to_dyno: Pending::default(),
            to_client: Pending::default(),
            begun: false,
            moved: 0,
            sent_any: false,
            answered_any: false,
            interims: 0,
            continued: false,
            watching: true,
            status: None,
            head_out: false,
            chunk_answer: false,
            cookie,
            keep_client: false,
            keep_dyno: false,
            dyno_timeout: None,
            body_bytes: 0,
            trailers: Vec::new(),
            read_size: limits::READ_FIRST,
        };
        if request.expect_continue
            && request.has_body()
            && app.policy.expect == Expect::Router
            && !client.transport.has_input()
        {
            // Only now that there is a connection: a request that is refused must not start its upload.
            let mut head = Vec::new();
            let compose = |to: &mut dyn FieldSink| to.status(100, "");
            client.transport.answer(&mut head, AnswerKind::Interim, compose);
            relay.to_client.push(&head);
            relay.continued = true;
        }
        relay.arm(client, app);
        relay
    }

    /// The dyno of this attempt.
    pub(crate) fn dyno(&self) -> &Dyno {
        &self.dyno
    }

    /// The status that the client was sent, if any.
    pub(crate) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Whether the client has been sent the beginning of something that must be sent to its end.
    pub(crate) fn is_client_midway(&self) -> bool {
        self.to_client.is_begun()
    }

    /// Whether the answer ends with its connection, so that a cut must not look like its end.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.head_out
            && matches!(self.answer, Answer::UntilClose | Answer::Chunked(_))
            && !self.chunk_answer
    }

    /// Bytes of the answer's body so far.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Whether the client's connection may carry another request.
    pub(crate) fn keeps_client(&self) -> bool {
        self.keep_client && self.is_request_whole()
    }

    /// Whether the client's request has been read to its end.
    pub(crate) fn is_request_whole(&self) -> bool {
        matches!(self.sending, Sending::Done)
    }

    /// State `wait`: the dyno has the whole request, and has said nothing final.
    pub(crate) fn is_waiting(&self) -> bool {
        let silent = matches!(&self.answer, Answer::Head(heads) if heads.is_empty());
        self.is_request_whole() && self.to_dyno.is_empty() && silent
    }

    /// Slot and connection, for those who go on without the client.
    pub(crate) fn into_parts(self) -> Option<(Lease, DynoStream)> {
        self.held.map(|held| (held.lease, held.stream))
    }

    /// One turn: everything that both sockets have and take now.
    pub(crate) fn poll(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        match self.turn(request, client, app, cx) {
            Ok(true) => {
                // Others on this worker get their turn.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(false) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// `Ok(true)`: there is more, but it was enough for one turn.
    fn turn(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Result<bool, End> {
        if client.worker.is_stopping() || self.dyno.is_given_up() {
            return Err(End::Refused(Refusal::ForcedClose));
        }
        // The first turn is part of the one that read the head, or found the dyno.
        if std::mem::replace(&mut self.begun, true) {
            client.worker.read_clock();
        }
        let start = self.moved;
        loop {
            let before = self.moved;
            self.send(request, client, cx)?;
            self.receive(request, client, app, cx)?;
            if self.moved == before {
                break;
            }
            self.arm(client, app);
            if self.moved - start > limits::FAIR_SHARE {
                return Ok(true);
            }
        }
        self.watch(request, client, cx)?;
        if client.deadline.is_due() { Err(End::Refused(self.expired())) } else { Ok(false) }
    }

    /// Sets the timer of the present state.
    fn arm(&self, client: &Client<impl Transport>, app: &App) {
        let timeouts = &app.policy.timeouts;
        let after = if self.is_waiting() { timeouts.first_byte } else { timeouts.rolling };
        client.deadline.set(client.worker.now().deadline(after));
    }

    /// Whose silence the timer has ended.
    fn expired(&self) -> Refusal {
        let answer_begun = !matches!(&self.answer, Answer::Head(heads) if heads.is_empty());
        if !self.to_client.is_empty() {
            Refusal::ClientIdle
        } else if answer_begun {
            Refusal::IdleConnection
        } else if self.to_dyno.is_empty() && self.sending.is_body() {
            Refusal::ClientIdle
        } else {
            Refusal::RequestTimeout
        }
    }

    /// Notices a client that hangs up while nothing is read from it. A stream's reset is no input, and stands
    /// beside what is not read yet.
    fn watch<T: Transport>(
        &mut self,
        request: &Request,
        client: &mut Client<T>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let silent = !self.sending.is_body() && !client.transport.has_input();
        if self.watching && (silent || !T::IS_CONNECTION) {
            match client.poll_gone(cx, request.said_close) {
                Some(true) => return Err(End::ClientGone),
                Some(false) => self.watching = false,
                None => {}
            }
        }
        Ok(())
    }

    /// The dyno's connection failed without a byte of a final answer.
    pub(crate) fn dyno_gone(&self, request: &Request) -> End {
        let failure = Failure {
            sent_any: self.sent_any,
            answered_any: self.answered_any,
            reused: self.reused,
            retried: self.repeated,
        };
        let whole = self.is_request_whole() && self.to_dyno.is_empty();
        let cause = if whole { Refusal::ClosedWithoutResponse } else { Refusal::ServerInterrupted };
        match retry::retry(request, failure) {
            Retry::No => End::Refused(cause),
            retry => End::Again { retry, cause, repeats: self.sent_any },
        }
    }

    /// Reads grow while the reader of what is read keeps up, and shrink when it does not. The more
    /// connections share the worker, the less each may grow: what slow peers leave unsent is bounded.
    pub(crate) fn adapt_reads(&mut self, worker: &Worker, count: usize, taken: bool) {
        if !taken {
            self.read_size = (self.read_size / 2).max(limits::READ_FIRST);
        } else if count == self.read_size {
            let share = limits::UNSENT_MAX / worker.connections().max(1);
            self.read_size =
                (self.read_size * 2).min(share).clamp(limits::READ_FIRST, limits::SCRATCH);
        }
    }
}
