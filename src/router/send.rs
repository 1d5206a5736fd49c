//! The request's way to the dyno: state `send`.

use std::cell::RefCell;
use std::task::{Context, Poll};

use crate::config::limits;
use crate::router::client::Client;
use crate::router::duplex::Sink;
use crate::router::relay::{End, Relay, Sending};
use crate::router::reply::Refusal;
use crate::router::request::Request;
use crate::router::transport::Transport;
use crate::wire::{ChunkedDecoder, Piece, RequestBody};

impl Relay {
    /// Passes on what there is of the request, as far as the dyno takes it.
    pub(crate) fn send<T: Transport>(
        &mut self,
        request: &Request,
        client: &mut Client<T>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let Some(held) = &mut self.held else { return Ok(()) };
        if !self.to_dyno.is_empty() {
            match self.to_dyno.poll_flush(&mut held.stream, cx, &mut self.moved) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.sending = Sending::Broken,
                Poll::Pending => return Ok(()),
            }
        }
        match &mut self.sending {
            Sending::Head(_) => self.send_head(request, client, cx),
            Sending::Length(_) | Sending::Chunked(_) | Sending::Unframed => {
                self.send_body(client, cx)
            }
            Sending::Done => {
                held.stream.finish(cx);
                Ok(())
            }
            Sending::Broken => Ok(()),
        }
    }

    fn send_head<T: Transport>(
        &mut self,
        request: &Request,
        client: &mut Client<T>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let (Sending::Head(written), Some(held)) = (&mut self.sending, &mut self.held) else {
            return Ok(());
        };
        while *written < request.head().len() {
            match held.stream.poll_write(cx, &request.head()[*written..]) {
                Poll::Ready(Ok(count)) => {
                    *written += count;
                    self.moved += count;
                    self.sent_any = true;
                }
                Poll::Ready(Err(_)) if !self.sent_any => return Err(self.dyno_gone(request)),
                Poll::Ready(Err(_)) => {
                    self.sending = Sending::Broken;
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
        self.sending = match request.body {
            RequestBody::None | RequestBody::Length(0) => Sending::Done,
            RequestBody::Length(length) => Sending::Length(length),
            RequestBody::Chunked if T::FRAMED => Sending::Chunked(ChunkedDecoder::new()),
            RequestBody::Chunked => Sending::Unframed,
        };
        self.send_body(client, cx)
    }

    /// Passes on what the client has sent of its body. Stops reading while the dyno does not take it.
    fn send_body<T: Transport>(
        &mut self,
        client: &mut Client<T>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        let worker = client.worker.clone();
        let start = self.moved;
        while self.to_dyno.is_empty() && self.sending.is_body() {
            let scratch = &mut worker.scratch.borrow_mut()[..self.read_size];
            match client.transport.poll_read(cx, scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) if matches!(self.sending, Sending::Unframed) => {
                    let trailers = client.transport.trailers();
                    let bad = Refusal::BadRequest { status: 400, cause: "bad trailer" };
                    self.end_body(&trailers.map_err(|_| End::Refused(bad))?, cx);
                }
                // A body that is cut must not look whole: the dyno's connection is dropped with the relay.
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::ClientGone),
                Poll::Ready(Ok(count)) => {
                    self.moved += count;
                    let used = self.pass_on(&scratch[..count], &worker.out, cx)?;
                    if used < count {
                        client.transport.unread(&scratch[used..count]);
                    }
                    self.adapt_reads(&worker, count, self.to_dyno.is_empty());
                }
            }
            if self.moved - start > limits::FAIR_SHARE {
                break;
            }
        }
        Ok(())
    }

    /// The body has come to its end.
    fn end_body(&mut self, trailers: &[u8], cx: &mut Context<'_>) {
        self.sending = Sending::Done;
        self.moved += 1;
        let Some(held) = &mut self.held else { return };
        let mut end = Vec::new();
        held.stream.frame_end(&mut end, trailers);
        if self.to_dyno.send(&mut held.stream, cx, &end, &mut self.moved).is_err() {
            self.sending = Sending::Broken;
        }
    }

    /// Re-frames bytes of the body for the dyno. Returns how many belong to it; the rest is another request.
    fn pass_on(
        &mut self,
        bytes: &[u8],
        out: &RefCell<Vec<u8>>,
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
                if whole {
                    held.stream.ends();
                }
                let written =
                    self.to_dyno.send(&mut held.stream, cx, &bytes[..count], &mut self.moved);
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
                        Ok(Piece::Data(data)) => held.stream.frame(out, data),
                        Ok(Piece::More) => break,
                        Ok(Piece::End) => {
                            held.stream.frame_end(out, decoder.trailers());
                            self.sending = Sending::Done;
                            break;
                        }
                        Err(_) => {
                            bad = true;
                            break;
                        }
                    }
                }
                let written = self.to_dyno.send(&mut held.stream, cx, out, &mut self.moved);
                if bad {
                    // The dyno has the good chunks and no last one, and its connection closes with the relay.
                    return Err(End::Refused(Refusal::BadRequest {
                        status: 400,
                        cause: "bad chunk",
                    }));
                }
                written
            }
            Sending::Unframed => {
                let out = &mut *out.borrow_mut();
                out.clear();
                held.stream.frame(out, bytes);
                rest = &[];
                self.to_dyno.send(&mut held.stream, cx, out, &mut self.moved)
            }
            Sending::Head(_) | Sending::Done | Sending::Broken => return Ok(0),
        };
        if written.is_err() {
            self.sending = Sending::Broken;
        }
        Ok(bytes.len() - rest.len())
    }
}
