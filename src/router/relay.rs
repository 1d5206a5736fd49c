//! Request and answer on their way, both at once: states `send`, `wait`, `answer` and `deliver`.
//!
//! Each turn is synchronous: read into the worker's scratch, re-frame, write. Bytes are copied aside only
//! when a peer does not take them, and nothing more is read for it until it has.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::config::limits;
use crate::model::Expect;
use crate::router::connection::Connection;
use crate::router::exchange::Exchange;
use crate::router::headers::{self, Framing};
use crate::router::pending::Pending;
use crate::router::pool::Upstream;
use crate::router::reply::Refusal;
use crate::router::retry::{self, Failure, Retry};
use crate::router::stream::Stream;
use crate::table::{App, Dyno, Lease};
use crate::wire::{
    self, ChunkedDecoder, FieldSlots, HeadScan, Piece, RequestBody, ResponseBody, ResponseHead,
};

/// How the relaying ended.
pub(crate) enum End {
    /// The whole answer is with the client's socket.
    Answered,
    /// The dyno's connection failed, and the request may be sent again.
    ///
    /// `repeats`: some of the request was with its socket already.
    Again { retry: Retry, cause: Refusal, repeats: bool },
    /// Both sockets are a pipe from now on; these bytes go first.
    Switched { to_client: Vec<u8>, to_dyno: Vec<u8> },
    /// The client hung up.
    ClientGone,
    /// It cannot go on, and this is why.
    Refused(Refusal),
}

/// One attempt to have a request answered by one dyno.
pub(crate) struct Relay {
    dyno: Arc<Dyno>,
    /// Slot and connection, until the answer has been read to its end.
    held: Option<Held>,
    reused: bool,
    sending: Sending,
    answer: Answer,
    to_dyno: Pending,
    to_client: Pending,
    /// Bytes moved on either socket, to see whether a turn got anywhere.
    moved: usize,
    sent_any: bool,
    answered_any: bool,
    interims: u32,
    /// The router has told the client to go on with its body.
    continued: bool,
    watching: bool,
    /// The status that the client was sent.
    status: Option<u16>,
    chunk_answer: bool,
    keep_client: bool,
    keep_dyno: bool,
    /// The dyno's own `Keep-Alive: timeout`, in seconds.
    dyno_timeout: Option<u32>,
    body_bytes: u64,
    read_size: usize,
}

struct Held {
    lease: Lease,
    stream: Stream,
}

/// How far the request is.
enum Sending {
    /// This many bytes of the head are with the dyno's socket.
    Head(usize),
    /// This much of the body is to come from the client.
    Length(u64),
    Chunked(ChunkedDecoder),
    /// Every byte is with the dyno's socket, or pending for it.
    Done,
    /// The dyno takes no more; what it said before may be its answer.
    Broken,
}

/// How far the answer is.
enum Answer {
    /// Its head, as far as it has come.
    Head {
        bytes: Vec<u8>,
        scan: HeadScan,
    },
    /// This much of the body is to come.
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
    /// 101: waits for the request to be whole.
    Switching {
        to_client: Vec<u8>,
    },
    Done,
}

impl Relay {
    pub(crate) fn new(
        exchange: &Exchange,
        client: &mut Connection,
        app: &App,
        lease: Lease,
        upstream: Upstream,
    ) -> Self {
        let mut relay = Self {
            dyno: lease.dyno().clone(),
            held: Some(Held { lease, stream: upstream.stream }),
            reused: upstream.reused,
            sending: Sending::Head(0),
            answer: Answer::Head { bytes: Vec::new(), scan: HeadScan::default() },
            to_dyno: Pending::default(),
            to_client: Pending::default(),
            moved: 0,
            sent_any: false,
            answered_any: false,
            interims: 0,
            continued: false,
            watching: true,
            status: None,
            chunk_answer: false,
            keep_client: false,
            keep_dyno: false,
            dyno_timeout: None,
            body_bytes: 0,
            read_size: limits::READ_FIRST,
        };
        let request = &exchange.request;
        if request.expect_continue
            && request.has_body()
            && app.policy.expect == Expect::Router
            && client.input.is_empty()
        {
            // Only now that there is a connection: a request that is refused must not start its upload.
            relay.to_client.push(b"HTTP/1.1 100 Continue\r\n\r\n");
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
        let silent = matches!(&self.answer, Answer::Head { bytes, .. } if bytes.is_empty());
        self.is_request_whole() && self.to_dyno.is_empty() && silent
    }

    /// Slot and connection, for those who go on without the client.
    pub(crate) fn into_parts(self) -> Option<(Lease, Stream)> {
        self.held.map(|held| (held.lease, held.stream))
    }

    /// One turn: everything that both sockets have and take now.
    pub(crate) fn poll(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        match self.turn(exchange, client, app, cx) {
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
        exchange: &Exchange,
        client: &mut Connection,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Result<bool, End> {
        let start = self.moved;
        loop {
            let before = self.moved;
            self.send(exchange, client, cx)?;
            self.receive(exchange, client, app, cx)?;
            if self.moved == before {
                break;
            }
            client.worker.read_clock();
            self.arm(client, app);
            if self.moved - start > limits::FAIR_SHARE {
                return Ok(true);
            }
        }
        if client.worker.is_stopping() {
            return Err(End::Refused(Refusal::ForcedClose));
        }
        self.watch(exchange, client, cx)?;
        if client.deadline.is_due() { Err(End::Refused(self.expired())) } else { Ok(false) }
    }

    /// Sets the timer of the present state.
    fn arm(&self, client: &Connection, app: &App) {
        let timeouts = &app.policy.timeouts;
        let after = if self.is_waiting() { timeouts.first_byte } else { timeouts.rolling };
        client.deadline.set(client.worker.now().deadline(after));
    }

    /// Whose silence the timer has ended.
    fn expired(&self) -> Refusal {
        let answer_begun = !matches!(&self.answer, Answer::Head { bytes, .. } if bytes.is_empty());
        if !self.to_client.is_empty() {
            Refusal::ClientIdle
        } else if answer_begun {
            Refusal::IdleConnection
        } else if self.to_dyno.is_empty()
            && matches!(self.sending, Sending::Length(_) | Sending::Chunked(_))
        {
            Refusal::ClientIdle
        } else {
            Refusal::RequestTimeout
        }
    }

    /// Notices a client that hangs up while it has nothing to send.
    fn watch(
        &mut self,
        exchange: &Exchange,
        client: &Connection,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let silent = !matches!(self.sending, Sending::Length(_) | Sending::Chunked(_));
        if self.watching && silent && client.input.is_empty() {
            match client.poll_gone(cx, exchange.request.said_close) {
                Some(true) => return Err(End::ClientGone),
                Some(false) => self.watching = false,
                None => {}
            }
        }
        Ok(())
    }

    // ---- the request, towards the dyno ---------------------------------------------------------------

    fn send(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let Some(held) = &mut self.held else { return Ok(()) };
        if !self.to_dyno.is_empty() {
            match self.to_dyno.poll_flush(&mut held.stream, cx) {
                Poll::Ready(Ok(count)) => self.moved += count,
                Poll::Ready(Err(_)) => self.sending = Sending::Broken,
                Poll::Pending => return Ok(()),
            }
        }
        match &mut self.sending {
            Sending::Head(_) => self.send_head(exchange, client, cx),
            Sending::Length(_) | Sending::Chunked(_) => self.send_body(client, cx),
            Sending::Done | Sending::Broken => Ok(()),
        }
    }

    fn send_head(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let (Sending::Head(written), Some(held)) = (&mut self.sending, &mut self.held) else {
            return Ok(());
        };
        while *written < exchange.head.len() {
            match held.stream.poll_write(cx, &exchange.head[*written..]) {
                Poll::Ready(Ok(count)) => {
                    *written += count;
                    self.moved += count;
                    self.sent_any = true;
                }
                Poll::Ready(Err(_)) if !self.sent_any => return Err(self.dyno_gone(exchange)),
                Poll::Ready(Err(_)) => {
                    self.sending = Sending::Broken;
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
        self.sending = match exchange.request.body {
            RequestBody::None | RequestBody::Length(0) => Sending::Done,
            RequestBody::Length(length) => Sending::Length(length),
            RequestBody::Chunked => Sending::Chunked(ChunkedDecoder::new()),
        };
        self.send_body(client, cx)
    }

    /// Passes on what the client has sent of its body. Stops reading while the dyno does not take it.
    fn send_body(&mut self, client: &mut Connection, cx: &mut Context<'_>) -> Result<(), End> {
        let worker = client.worker.clone();
        let start = self.moved;
        while self.to_dyno.is_empty()
            && matches!(self.sending, Sending::Length(_) | Sending::Chunked(_))
        {
            if !client.input.is_empty() {
                let input = std::mem::take(&mut client.input);
                let used = self.pass_on(&input, &worker.out, cx)?;
                client.input = input[used..].to_vec();
                continue;
            }
            let scratch = &mut worker.scratch.borrow_mut()[..self.read_size];
            match client.stream.poll_read(cx, scratch) {
                Poll::Pending => return Ok(()),
                // A body that is cut must not look whole: the dyno's connection is dropped with the relay.
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::ClientGone),
                Poll::Ready(Ok(count)) => {
                    self.moved += count;
                    let used = self.pass_on(&scratch[..count], &worker.out, cx)?;
                    client.input = scratch[used..count].to_vec();
                    self.adapt_reads(count, self.to_dyno.is_empty());
                }
            }
            if self.moved - start > limits::FAIR_SHARE {
                break;
            }
        }
        Ok(())
    }

    /// Re-frames bytes of the body for the dyno. Returns how many belong to it; the rest is another request.
    fn pass_on(
        &mut self,
        bytes: &[u8],
        out: &std::cell::RefCell<Vec<u8>>,
        cx: &mut Context<'_>,
    ) -> Result<usize, End> {
        let Some(held) = &mut self.held else { return Ok(bytes.len()) };
        let mut rest = bytes;
        let written = match &mut self.sending {
            Sending::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                let whole = *left == 0;
                rest = &bytes[count..];
                let written = self.to_dyno.send(&mut held.stream, cx, &bytes[..count]);
                if whole {
                    self.sending = Sending::Done;
                }
                written
            }
            Sending::Chunked(decoder) => {
                let out = &mut *out.borrow_mut();
                out.clear();
                let mut bad = false;
                loop {
                    match decoder.next(&mut rest) {
                        Ok(Piece::Data(data)) => wire::write_chunk(out, data),
                        Ok(Piece::More) => break,
                        Ok(Piece::End) => {
                            wire::write_last_chunk(out, decoder.trailers());
                            self.sending = Sending::Done;
                            break;
                        }
                        Err(_) => {
                            bad = true;
                            break;
                        }
                    }
                }
                let written = self.to_dyno.send(&mut held.stream, cx, out);
                if bad {
                    // The dyno has the good chunks and no last one, and its connection closes with the relay.
                    return Err(End::Refused(Refusal::BadRequest {
                        status: 400,
                        cause: "bad chunk",
                    }));
                }
                written
            }
            Sending::Head(_) | Sending::Done | Sending::Broken => return Ok(0),
        };
        match written {
            Ok(count) => self.moved += count,
            Err(_) => self.sending = Sending::Broken,
        }
        Ok(bytes.len() - rest.len())
    }

    // ---- the answer, towards the client --------------------------------------------------------------

    fn receive(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let start = self.moved;
        loop {
            if !self.to_client.is_empty() {
                match self.to_client.poll_flush(&mut client.stream, cx) {
                    Poll::Ready(Ok(count)) => self.moved += count,
                    Poll::Ready(Err(_)) => return Err(End::ClientGone),
                    // The dyno waits with the client.
                    Poll::Pending => return Ok(()),
                }
            }
            if let Answer::Switching { to_client } = &mut self.answer {
                if !matches!(self.sending, Sending::Done) || !self.to_dyno.is_empty() {
                    return Ok(());
                }
                let to_client = std::mem::take(to_client);
                return Err(End::Switched {
                    to_client,
                    to_dyno: std::mem::take(&mut client.input),
                });
            }
            if matches!(self.answer, Answer::Done) {
                return Err(End::Answered);
            }
            let Some(held) = &mut self.held else { return Ok(()) };
            let worker = client.worker.clone();
            let scratch = &mut worker.scratch.borrow_mut()[..self.read_size];
            match held.stream.poll_read(cx, scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => self.dyno_closed(exchange, client, cx, Ok(()))?,
                Poll::Ready(Err(error)) => self.dyno_closed(exchange, client, cx, Err(error))?,
                Poll::Ready(Ok(count)) => {
                    self.moved += count;
                    self.answered_any = true;
                    self.take_answer(&scratch[..count], exchange, client, app, cx)?;
                    self.adapt_reads(count, self.to_client.is_empty());
                }
            }
            if self.moved - start > limits::FAIR_SHARE {
                return Ok(());
            }
        }
    }

    /// Passes on bytes of the answer, in whichever state it is.
    fn take_answer(
        &mut self,
        bytes: &[u8],
        exchange: &Exchange,
        client: &mut Connection,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let worker = client.worker.clone();
        let out = &mut *worker.out.borrow_mut();
        out.clear();
        let rest = match &mut self.answer {
            Answer::Head { bytes: before, .. } if before.is_empty() => {
                self.take_head(bytes, exchange, client, out)?
            }
            Answer::Head { bytes: before, .. } => {
                let mut whole = std::mem::take(before);
                whole.extend_from_slice(bytes);
                let rest = self.take_head(&whole, exchange, client, out)?.to_vec();
                return self.pass_back(&rest, client, app, out, cx);
            }
            _ => bytes,
        };
        self.pass_back(rest, client, app, out, cx)
    }

    /// Passes on the body's bytes, after what `out` holds.
    fn pass_back(
        &mut self,
        bytes: &[u8],
        client: &mut Connection,
        app: &App,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        // Bytes that need no framing of ours go straight from the scratch, unless a head goes first.
        let direct = match &self.answer {
            Answer::Length(left) => out.is_empty() && bytes.len() as u64 <= *left,
            Answer::UntilClose => out.is_empty() && !self.chunk_answer,
            _ => false,
        };
        let rest = if direct { self.count_body(bytes) } else { self.frame_body(bytes, out)? };
        if matches!(self.answer, Answer::Done) {
            self.keep_dyno &= rest.is_empty();
            // Before the client is written to: the slot is free when the last byte has been read.
            self.give_back(client, app);
        }
        let sent = self.to_client.send(&mut client.stream, cx, if direct { bytes } else { out });
        self.moved += sent.map_err(|_| End::ClientGone)?;
        Ok(())
    }

    /// Counts unframed body bytes; the state moves on when they are all.
    fn count_body<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        self.body_bytes += bytes.len() as u64;
        if let Answer::Length(left) = &mut self.answer {
            *left -= bytes.len() as u64;
            if *left == 0 {
                self.answer = Answer::Done;
            }
        }
        &bytes[bytes.len()..]
    }

    /// Appends the body's bytes to `out` in the client's framing. Returns what comes after the body.
    fn frame_body<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], End> {
        let mut rest = bytes;
        let mut data = |out: &mut Vec<u8>, chunked: bool, data: &[u8]| {
            self.body_bytes += data.len() as u64;
            if chunked { wire::write_chunk(out, data) } else { out.extend_from_slice(data) }
        };
        match &mut self.answer {
            Answer::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                data(out, false, &bytes[..count]);
                rest = &bytes[count..];
                *left -= count as u64;
                if *left == 0 {
                    self.answer = Answer::Done;
                }
            }
            Answer::UntilClose => {
                data(out, self.chunk_answer, bytes);
                rest = &[];
            }
            Answer::Chunked(decoder) => loop {
                match decoder.next(&mut rest) {
                    Ok(Piece::Data(piece)) => data(out, self.chunk_answer, piece),
                    Ok(Piece::More) => break,
                    Ok(Piece::End) => {
                        if self.chunk_answer {
                            wire::write_last_chunk(out, decoder.trailers());
                        }
                        self.answer = Answer::Done;
                        break;
                    }
                    Err(_) => return Err(End::Refused(Refusal::BadResponse("bad chunk"))),
                }
            },
            Answer::Switching { to_client } => {
                to_client.extend_from_slice(bytes);
                rest = &[];
            }
            Answer::Head { .. } | Answer::Done => {}
        }
        Ok(rest)
    }

    /// Reads heads until the final one: interim answers are passed on or swallowed, what is incomplete is
    /// kept. Returns what follows the final head (or nothing, if it is not there yet).
    fn take_head<'a>(
        &mut self,
        bytes: &'a [u8],
        exchange: &Exchange,
        client: &Connection,
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], End> {
        let mut rest = bytes;
        while let Answer::Head { bytes: kept, scan } = &mut self.answer {
            if rest.is_empty() {
                break;
            }
            let end = scan
                .find_end(rest, limits::RESPONSE_HEAD_MAX)
                .map_err(|bad| End::Refused(wire::BadResponse::from(bad).into()))?;
            let Some(length) = end else {
                *kept = rest.to_vec();
                return Ok(&[]);
            };
            *scan = HeadScan::default();
            let (head, after) = rest.split_at(length);
            rest = after;
            let mut slots = FieldSlots::new();
            let head = ResponseHead::parse(head, &mut slots, exchange.request.is_head)
                .map_err(|bad| End::Refused(bad.into()))?;
            if head.is_interim() {
                self.take_interim(&head, exchange, out)?;
            } else {
                self.take_final(&head, exchange, client, out)?;
            }
        }
        Ok(rest)
    }

    /// Passes on an interim answer, except a 100 that the client did not ask for or has had already, and
    /// except to HTTP/1.0, which knows none (RFC 9110 §15.2).
    fn take_interim(
        &mut self,
        head: &ResponseHead<'_, '_>,
        exchange: &Exchange,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        self.interims += 1;
        if self.interims > limits::INTERIM_MAX {
            return Err(End::Refused(Refusal::BadResponse("too many interim responses")));
        }
        let unwanted = head.status == 100 && (self.continued || !exchange.request.expect_continue);
        if exchange.request.is_http11() && !unwanted {
            headers::write_interim(out, head);
        }
        Ok(())
    }

    fn take_final(
        &mut self,
        head: &ResponseHead<'_, '_>,
        exchange: &Exchange,
        client: &Connection,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        let request = &exchange.request;
        if head.status == 101 {
            let tokens = head.upgrade_tokens().filter(|_| request.upgrade);
            let tokens = tokens.ok_or(End::Refused(Refusal::BadResponse("unasked 101")))?;
            let mut to_client = Vec::new();
            headers::write_switching(&mut to_client, head, tokens);
            self.status = Some(101);
            self.answer = Answer::Switching { to_client };
            return Ok(());
        }
        let whole = self.is_request_whole() && self.to_dyno.is_empty();
        let framing = match head.body {
            ResponseBody::None => head.content_length().map_or(Framing::None, Framing::Length),
            ResponseBody::Length(length) => Framing::Length(length),
            ResponseBody::Chunked | ResponseBody::UntilClose if request.is_http11() => {
                Framing::Chunked
            }
            ResponseBody::Chunked | ResponseBody::UntilClose => Framing::UntilClose,
        };
        self.chunk_answer = framing == Framing::Chunked;
        self.keep_client = whole && framing != Framing::UntilClose && exchange.may_keep(client);
        self.keep_dyno = head.reusable && whole;
        self.dyno_timeout = head.keep_alive_timeout;
        self.status = Some(head.status);
        let connection = match (self.keep_client, request.is_http11()) {
            (true, true) => None,
            (true, false) => Some("keep-alive"),
            (false, _) => Some("close"),
        };
        let now = client.worker.read_clock();
        headers::compose_response(
            out,
            head,
            framing,
            connection,
            &mut client.worker.date.borrow_mut(),
            now,
        );
        self.answer = match head.body {
            ResponseBody::None | ResponseBody::Length(0) => Answer::Done,
            ResponseBody::Length(length) => Answer::Length(length),
            ResponseBody::Chunked => Answer::Chunked(ChunkedDecoder::new()),
            ResponseBody::UntilClose => Answer::UntilClose,
        };
        Ok(())
    }

    /// The dyno's connection ended: an end of the answer, or the end of the attempt.
    fn dyno_closed(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        cx: &mut Context<'_>,
        how: io::Result<()>,
    ) -> Result<(), End> {
        match &self.answer {
            Answer::Head { bytes, .. } if bytes.is_empty() => Err(self.dyno_gone(exchange)),
            Answer::UntilClose if how.is_ok() => {
                self.held = None;
                self.answer = Answer::Done;
                self.moved += 1;
                if self.chunk_answer {
                    let sent = self.to_client.send(&mut client.stream, cx, b"0\r\n\r\n");
                    self.moved += sent.map_err(|_| End::ClientGone)?;
                }
                Ok(())
            }
            _ => Err(End::Refused(Refusal::ServerInterrupted)),
        }
    }

    /// The dyno's connection failed without a byte of a final answer.
    fn dyno_gone(&self, exchange: &Exchange) -> End {
        let failure = Failure {
            sent_any: self.sent_any,
            answered_any: self.answered_any,
            reused: self.reused,
            retried: exchange.was_repeated(),
        };
        let whole = self.is_request_whole() && self.to_dyno.is_empty();
        let cause = if whole { Refusal::ClosedWithoutResponse } else { Refusal::ServerInterrupted };
        match retry::retry(&exchange.request, failure) {
            Retry::No => End::Refused(cause),
            retry => End::Again { retry, cause, repeats: self.sent_any },
        }
    }

    /// The answer has been read to its end: the slot is free, and the connection may carry another request.
    fn give_back(&mut self, client: &Connection, app: &App) {
        let Some(Held { lease, stream }) = self.held.take() else { return };
        if self.keep_dyno && self.is_request_whole() {
            let own = app.policy.timeouts.dyno_keepalive;
            // A second less than the dyno waits, so that it does not close just as we send.
            let dynos = self.dyno_timeout.map(|seconds| {
                std::time::Duration::from_secs(u64::from(seconds.saturating_sub(1)))
            });
            let keepalive = dynos.map_or(own, |dynos| dynos.min(own));
            client.worker.pools.put_back(lease.dyno(), stream, client.worker.now(), keepalive);
        }
    }

    /// Reads grow while the reader of what is read keeps up, and shrink when it does not.
    fn adapt_reads(&mut self, count: usize, taken: bool) {
        if !taken {
            self.read_size = (self.read_size / 2).max(limits::READ_FIRST);
        } else if count == self.read_size {
            self.read_size = (self.read_size * 2).min(limits::SCRATCH);
        }
    }
}

impl From<wire::BadResponse> for Refusal {
    fn from(bad: wire::BadResponse) -> Self {
        if bad.code() == "H25" {
            Self::Restriction(bad.cause())
        } else {
            Self::BadResponse(bad.cause())
        }
    }
}
