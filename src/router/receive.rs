//! The answer's way to the client: states `wait`, `answer` and `deliver`.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::config::limits;
use crate::router::client::Client;
use crate::router::duplex::Source;
use crate::router::headers::{self, Framing};
use crate::router::relay::{Answer, End, Held, Relay, Sending, Switched};
use crate::router::reply::Refusal;
use crate::router::request::Request;
use crate::router::transport::{AnswerKind, FieldSink, Transport};
use crate::table::App;
use crate::wire::{self, ChunkedDecoder, Piece, ResponseBody, ResponseHead};

impl Relay {
    /// Passes on what there is of the answer, as far as the client takes it.
    pub(crate) fn receive(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let start = self.moved;
        loop {
            if !self.to_client.is_empty() {
                match self.to_client.poll_flush(&mut client.transport, cx, &mut self.moved) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Err(End::ClientGone),
                    // The dyno waits with the client.
                    Poll::Pending => return Ok(()),
                }
            }
            if let Answer::Switching(switched) = &mut self.answer {
                if matches!(self.sending, Sending::Broken) {
                    return Err(End::Refused(Refusal::ServerInterrupted));
                }
                if !matches!(self.sending, Sending::Done) || !self.to_dyno.is_empty() {
                    return Ok(());
                }
                return Err(End::Switched(std::mem::take(switched)));
            }
            if matches!(self.answer, Answer::Done) {
                client.transport.finish();
                return Err(End::Answered);
            }
            let Some(held) = &mut self.held else { return Ok(()) };
            let worker = client.worker.clone();
            let scratch = &mut worker.scratch.borrow_mut()[..self.read_size];
            match held.stream.poll_read(cx, scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => self.dyno_closed(request, client, app, cx, Ok(()))?,
                Poll::Ready(Err(error)) => {
                    self.dyno_closed(request, client, app, cx, Err(error))?
                }
                Poll::Ready(Ok(count)) => {
                    self.moved += count;
                    self.answered_any = true;
                    self.take_answer(&scratch[..count], request, client, app, cx)?;
                    self.adapt_reads(&worker, count, self.to_client.is_empty());
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
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &App,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let worker = client.worker.clone();
        let out = &mut *worker.out.borrow_mut();
        out.clear();
        let rest = match &mut self.answer {
            Answer::Head(heads) => {
                let mut heads = std::mem::take(heads);
                let each = |head: &ResponseHead<'_, '_>| match head.is_interim() {
                    true => self.take_interim(head, request, client, out),
                    false => self.take_final(head, request, client, out),
                };
                match heads.take(bytes, request.is_head, each)? {
                    Some(rest) => rest,
                    None => {
                        self.answer = Answer::Head(heads);
                        &[]
                    }
                }
            }
            _ => bytes,
        };
        self.pass_back(rest, client, app, out, cx)
    }

    /// Passes on the body's bytes, after what `out` holds.
    fn pass_back(
        &mut self,
        bytes: &[u8],
        client: &mut Client<impl Transport>,
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
        let rest = if direct {
            self.count_body(bytes)
        } else {
            match self.frame_body(bytes, out) {
                Ok(rest) => rest,
                Err(end) => {
                    if !self.head_out {
                        // The head is still here: the client can be told what went wrong instead.
                        self.status = None;
                    }
                    return Err(end);
                }
            }
        };
        if matches!(self.answer, Answer::Done) {
            self.keep_dyno &= rest.is_empty();
            // Before the client is written to: the slot is free when the last byte has been read.
            self.give_back(client, app);
            client.transport.ends(&self.trailers);
        }
        self.head_out = self.status.is_some() && !matches!(self.answer, Answer::Switching(_));
        let bytes = if direct { bytes } else { out };
        let sent = self.to_client.send(&mut client.transport, cx, bytes, &mut self.moved);
        sent.map_err(|_| End::ClientGone)
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
                        } else {
                            self.trailers = decoder.trailers().to_vec();
                        }
                        self.answer = Answer::Done;
                        break;
                    }
                    Err(_) => return Err(End::Refused(Refusal::BadResponse("bad chunk"))),
                }
            },
            Answer::Switching(switched) => {
                switched.to_client.extend_from_slice(bytes);
                rest = &[];
            }
            Answer::Head(_) | Answer::Done => {}
        }
        Ok(rest)
    }

    /// Passes on an interim answer, except a 100 that the client did not ask for or has had already, and
    /// except to HTTP/1.0, which knows none (RFC 9110 §15.2).
    fn take_interim(
        &mut self,
        head: &ResponseHead<'_, '_>,
        request: &Request,
        client: &mut Client<impl Transport>,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        self.interims += 1;
        if self.interims > limits::INTERIM_MAX {
            return Err(End::Refused(Refusal::BadResponse("too many interim responses")));
        }
        let unwanted = head.status == 100 && (self.continued || !request.expect_continue);
        if request.is_http11() && !unwanted {
            let compose = |to: &mut dyn FieldSink| headers::compose_interim(to, head);
            client.transport.answer(out, AnswerKind::Interim, compose);
        }
        Ok(())
    }

    fn take_final<T: Transport>(
        &mut self,
        head: &ResponseHead<'_, '_>,
        request: &Request,
        client: &mut Client<T>,
        out: &mut Vec<u8>,
    ) -> Result<(), End> {
        if head.status == 101 {
            let tokens = head.upgrade_tokens().filter(|_| request.upgrade);
            let tokens = tokens.ok_or(End::Refused(Refusal::BadResponse("unasked 101")))?;
            let mut to_client = Vec::new();
            let cookie = self.cookie.as_deref();
            let compose = |to: &mut dyn FieldSink| {
                headers::compose_switching(to, head, tokens);
                headers::compose_cookie(to, cookie);
            };
            client.transport.answer(&mut to_client, AnswerKind::Switching, compose);
            let is_websocket = tokens.eq_ignore_ascii_case(b"websocket");
            let head = to_client.len();
            self.answer = Answer::Switching(Switched { to_client, head, is_websocket });
            return Ok(());
        }
        if request.upgrade && !T::FRAMED && (200..300).contains(&head.status) {
            // To extended CONNECT it would say that the tunnel is open (RFC 8441 §5).
            return Err(End::Refused(Refusal::BadResponse("upgrade ignored")));
        }
        let whole = self.is_request_whole() && self.to_dyno.is_empty();
        let framing = match head.body {
            ResponseBody::None => head.content_length().map_or(Framing::None, Framing::Length),
            ResponseBody::Length(length) => Framing::Length(length),
            ResponseBody::Chunked | ResponseBody::UntilClose if !T::FRAMED => Framing::None,
            ResponseBody::Chunked | ResponseBody::UntilClose if request.is_http11() => {
                Framing::Chunked
            }
            ResponseBody::Chunked | ResponseBody::UntilClose => Framing::UntilClose,
        };
        self.chunk_answer = framing == Framing::Chunked;
        self.keep_client = whole && framing != Framing::UntilClose && client.may_keep(request);
        // Where bodies are not framed the connection does not end with one.
        let unframed = self.held.as_ref().is_some_and(|held| !held.stream.is_framed());
        self.keep_dyno = (head.reusable || unframed) && whole;
        self.dyno_timeout = head.keep_alive_timeout;
        self.status = Some(head.status);
        let connection = match (self.keep_client, request.is_http11()) {
            _ if !T::FRAMED => None,
            (true, true) => None,
            (true, false) => Some("keep-alive"),
            (false, _) => Some("close"),
        };
        self.answer = match head.body {
            ResponseBody::None | ResponseBody::Length(0) => Answer::Done,
            ResponseBody::Length(length) => Answer::Length(length),
            ResponseBody::Chunked => Answer::Chunked(ChunkedDecoder::new()),
            ResponseBody::UntilClose => Answer::UntilClose,
        };
        let kind = AnswerKind::Final { whole: matches!(self.answer, Answer::Done) };
        let worker = client.worker.clone();
        let date = &mut worker.date.borrow_mut();
        client.transport.answer(out, kind, |to| {
            headers::compose_response(to, head, framing, connection, date, worker.now());
            headers::compose_cookie(to, self.cookie.as_deref());
        });
        Ok(())
    }

    /// The dyno's connection ended: an end of the answer, or the end of the attempt.
    fn dyno_closed(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &App,
        cx: &mut Context<'_>,
        how: io::Result<()>,
    ) -> Result<(), End> {
        match &self.answer {
            Answer::Head(heads) if heads.is_empty() => Err(self.dyno_gone(request)),
            Answer::UntilClose if how.is_ok() => {
                self.trailers =
                    self.held.as_mut().map(|it| it.stream.trailers()).unwrap_or_default();
                self.answer = Answer::Done;
                self.moved += 1;
                self.give_back(client, app);
                let mut end = Vec::new();
                if self.chunk_answer {
                    wire::write_last_chunk(&mut end, &self.trailers);
                }
                client.transport.ends(&self.trailers);
                let sent = self.to_client.send(&mut client.transport, cx, &end, &mut self.moved);
                sent.map_err(|_| End::ClientGone)
            }
            _ => Err(End::Refused(Refusal::ServerInterrupted)),
        }
    }

    /// The answer has been read to its end: the slot is free, and the connection may carry another request.
    fn give_back(&mut self, client: &Client<impl Transport>, app: &App) {
        let Some(Held { lease, stream }) = self.held.take() else { return };
        if self.keep_dyno && self.is_request_whole() {
            let own = app.policy.timeouts.dyno_keepalive;
            // A second less than the dyno waits, so that it does not close just as we send.
            let dynos = self
                .dyno_timeout
                .map(|seconds| Duration::from_secs(u64::from(seconds.saturating_sub(1))));
            let keepalive = dynos.map_or(own, |dynos| dynos.min(own));
            client.worker.pools.put_back(lease.dyno(), stream, client.worker.now(), keepalive);
        }
    }
}

impl From<wire::BadResponse> for End {
    fn from(bad: wire::BadResponse) -> Self {
        Self::Refused(bad.into())
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
