//! A request's life: admit → find a dyno → send and relay → give the slot back → one line.
//!
//! This file reads as that life. Where requests are refused is `admit`, how a dyno is found is `search.rs`,
//! how bytes go both ways is `relay.rs`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::config::limits;
use crate::model::{ClientNet, Expect, Host};
use crate::router::access_log::{self, Outcome};
use crate::router::affinity::Wish;
use crate::router::client::Client;
use crate::router::clock::Moment;
use crate::router::duplex::Sink;
use crate::router::headers::{self, Forwarding, RequestId};
use crate::router::linger::{self, Linger};
use crate::router::origin::origin;
use crate::router::pending::Pending;
use crate::router::relay::{End, Relay, Switched};
use crate::router::reply::{Refusal, Reply};
use crate::router::request::Request;
use crate::router::search::Search;
use crate::router::security::{Security, TlsVersion};
use crate::router::traffic::{self, Asking, InFlight};
use crate::router::transport::Transport;
use crate::router::upgrade;
use crate::router::worker::Worker;
use crate::table::{App, Dyno, Table};
use crate::wire::{BadHead, BadRequest, FieldSlots, RequestHead, Target};

/// One request and its answer.
pub(crate) struct Exchange {
    app: Option<Arc<App>>,
    request: Request,
    request_id: RequestId,
    /// Why it goes no further, where admission says so.
    refusal: Option<Refusal>,
    /// What that answer says beside it.
    note: Option<Box<str>>,
    /// What it counts against until its end.
    in_flight: Option<Box<InFlight>>,
    tls: Option<TlsVersion>,
    began: Moment,
    /// When a connection was in hand, and since when connecting counts.
    connected: Option<Moment>,
    connect: Option<Duration>,
    dyno: Option<Arc<Dyno>>,
    retries: u32,
    /// The next attempt sends again what a dyno's socket had accepted.
    repeats: bool,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It may carry another request.
    Keep,
    /// It is over, and the client may still be sending.
    WindDown,
    /// It is over, or must end visibly unfinished.
    Close,
}

impl Exchange {
    /// Reads a whole head, finds its app, and composes what the dyno will see. No await, no copy of the head
    /// but the composed one.
    pub(crate) fn admit(client: &Client<impl Transport>, bytes: &[u8]) -> Self {
        let mut slots = FieldSlots::new();
        let head = match RequestHead::parse(bytes, &mut slots) {
            Ok(head) => head,
            Err(bad) => return Self::unreadable(client, bytes, bad.into()),
        };
        let worker = &*client.worker;
        let table = worker.table();
        let app = table.find(&head.lookup).cloned();
        let expect_dyno = app.as_ref().is_some_and(|app| app.policy.expect == Expect::Dyno);
        let peer = client.peer.ip();
        let trusted = table.listener().trusts(peer);
        let security = client.transport.security();
        let with = Forwarding {
            peer,
            trusted,
            secure: security.is_some(),
            port: client.listener.port(),
            now: worker.now(),
            random: &worker.random,
            keep: app.as_ref().is_none_or(|app| !app.policy.timeouts.dyno_keepalive.is_zero()),
            expect: head.expect_continue && expect_dyno,
        };
        let mut text = Vec::with_capacity(2 * bytes.len() + 512);
        let composed = headers::compose_request(&mut text, &head, &with);
        let head_length = text.len();
        let path = match head.target {
            Target::Origin(path) => path.as_bytes(),
            Target::Asterisk => b"*",
        };
        let (id, fwd) = (&composed.request_id, &composed.fwd);
        access_log::write_request(&mut text, head.method, path, head.host, id, fwd);
        let mut note = None;
        let refusal = if composed.is_loop {
            Some(Refusal::BadRequest { status: 508, cause: "routing loop" })
        } else if is_misdirected(&table, &head, app.as_ref(), security) {
            Some(Refusal::Misdirected)
        } else if let Some(answer) = challenge_answer(worker, path) {
            note = Some(answer.into());
            Some(Refusal::AcmeChallenge)
        } else if let Some(location) =
            https_only(worker, &head, app.as_deref().filter(|_| !composed.is_secure))
        {
            note = Some(location.into());
            Some(Refusal::HttpsOnly)
        } else {
            refusal(app.as_deref())
        };
        let origin = || origin(&composed.fwd, &table.listener().trusted_proxies);
        let counted = match (refusal, app.as_deref()) {
            (None, Some(app)) => count(client, app, trusted, origin),
            _ => Ok(None),
        };
        let refusal = refusal.or(counted.as_ref().err().copied());
        let wish = |app: &Arc<App>| Wish::of(app, &head, composed.is_secure, origin);
        let wish = app.as_ref().map_or(Wish::Any, wish);
        let request = Request::of(&head, text, head_length, composed.wants_json, wish);
        Self {
            note,
            in_flight: counted.unwrap_or_default(),
            ..Self::new(client, app, request, composed.request_id, refusal)
        }
    }

    /// The exchange of a head that cannot be read: it will be refused. What can be made out of its first line is
    /// for the log.
    pub(crate) fn unreadable(
        client: &Client<impl Transport>,
        bytes: &[u8],
        refusal: Refusal,
    ) -> Self {
        let worker = &*client.worker;
        let request_id = RequestId::from(&worker.random.uuid()[..]);
        let (method, path) = guess_request_line(bytes);
        let fwd = client.peer.ip().map_or_else(String::new, |ip| ip.to_string());
        let mut line = Vec::new();
        access_log::write_request(&mut line, method, path, "", &request_id, fwd.as_bytes());
        Self::new(client, None, Request::unreadable(line), request_id, Some(refusal))
    }

    fn new(
        client: &Client<impl Transport>,
        app: Option<Arc<App>>,
        request: Request,
        request_id: RequestId,
        refusal: Option<Refusal>,
    ) -> Self {
        Self {
            app,
            request,
            request_id,
            refusal,
            note: None,
            in_flight: None,
            tls: client.transport.security().map(|security| security.version),
            began: client.worker.now(),
            connected: None,
            connect: None,
            dyno: None,
            retries: 0,
            repeats: false,
        }
    }

    /// Lives from admission to the line. Has the client's connection until then.
    ///
    #[expect(clippy::manual_async_fn, reason = "it would hold what it is given twice")]
    pub(crate) fn run<T: Transport>(
        mut self,
        mut client: Client<T>,
    ) -> impl Future<Output = (After, Client<T>)> {
        async move {
            if !T::IS_CONNECTION {
                client.enter().await;
            }
            let after = self.live(&mut client).await;
            (after, client)
        }
    }

    /// The rare ways are boxed: thousands of these may be in flight at once, and each is moved into place.
    async fn live(&mut self, client: &mut Client<impl Transport>) -> After {
        let app = match (self.refusal, self.app.clone()) {
            (None, Some(app)) => app,
            (refusal, _) => {
                let whole = client.transport.take_body(self.request.body);
                let refusal = refusal.unwrap_or(Refusal::NoSuchApp);
                return Box::pin(self.refuse(client, refusal, whole)).await;
            }
        };
        let mut search = Search::new(client, &app);
        loop {
            let found = match search.find_now(&self.request, client, &app) {
                Some(found) => Ok(found),
                None => Box::pin(search.find(&self.request, client, &app)).await,
            };
            let (lease, upstream) = match found {
                Ok(found) => found,
                Err(refusal) => {
                    self.dyno = search.last().cloned();
                    if self.connected.is_none() {
                        let since = search.connecting_since();
                        self.connect = since.map(|since| client.worker.now().since(since));
                    }
                    let whole = client.transport.take_body(self.request.body);
                    return Box::pin(self.refuse(client, refusal, whole)).await;
                }
            };
            self.begin_service(client, lease.dyno().clone());
            let mut relay =
                Relay::new(&self.request, client, &app, lease, upstream, self.retries > 0);
            let end = poll_fn(|cx| relay.poll(&self.request, client, &app, cx)).await;
            match end {
                End::Again { retry, cause, repeats } => {
                    search.failed(relay.dyno(), retry, cause);
                    self.repeats = repeats;
                }
                End::Answered => return self.answered(client, &relay),
                End::Switched(switched) => {
                    return Box::pin(self.pipe(client, &app, relay, switched)).await;
                }
                End::ClientGone => return self.client_gone(client, &app, relay),
                End::Refused(refusal) => {
                    return Box::pin(self.broken(client, &app, relay, refusal)).await;
                }
            }
        }
    }

    /// Milliseconds count from here as `service=`.
    fn begin_service(&mut self, client: &Client<impl Transport>, dyno: Arc<Dyno>) {
        let now = client.worker.now();
        self.retries += u32::from(std::mem::take(&mut self.repeats));
        self.dyno = Some(dyno);
        if self.connected.is_none() {
            self.connect = Some(now.since(self.began));
            self.connected = Some(now);
        }
    }

    /// The whole answer is with the client's socket.
    fn answered(&mut self, client: &Client<impl Transport>, relay: &Relay) -> After {
        self.end(client, None, relay.status().unwrap_or(499), Some(relay.body_bytes()));
        if relay.keeps_client() { After::Keep } else { After::WindDown }
    }

    /// The client hung up. Before any byte of an answer the dyno may be working: it sees the end of our side
    /// (an app that looks can stop) and keeps its slot until it is done, so that the count stays true.
    fn client_gone(
        &mut self,
        client: &Client<impl Transport>,
        app: &Arc<App>,
        relay: Relay,
    ) -> After {
        let (status, bytes) = (relay.status().unwrap_or(499), relay.body_bytes());
        if relay.is_waiting() {
            self.linger(client, app, relay, true);
        } else {
            drop(relay);
        }
        self.end(client, Some(Refusal::ClientInterrupted), status, Some(bytes));
        After::Close
    }

    /// The exchange ended against the dyno's, the client's or our own will.
    async fn broken(
        &mut self,
        client: &mut Client<impl Transport>,
        app: &Arc<App>,
        relay: Relay,
        refusal: Refusal,
    ) -> After {
        let (sent, bytes) = (relay.status(), relay.body_bytes());
        // After a silence the client's connection ends too (state `answer`).
        let whole = relay.is_request_whole() && refusal != Refusal::IdleConnection;
        let midway = relay.is_client_midway();
        if sent.is_some() {
            client.transport.break_off(relay.ends_with_connection());
        }
        if refusal == Refusal::RequestTimeout && relay.is_waiting() {
            self.linger(client, app, relay, false);
        } else {
            drop(relay);
        }
        match sent {
            // What has begun cannot be taken back: the client sees it end in the middle.
            Some(status) => self.cut(client, refusal, status, bytes).await,
            // Half an interim answer is with the client: no second head can be written into it.
            None if midway => self.cut(client, refusal, 499, bytes).await,
            None => self.refuse(client, refusal, whole).await,
        }
    }

    async fn cut(
        &mut self,
        client: &Client<impl Transport>,
        refusal: Refusal,
        status: u16,
        bytes: u64,
    ) -> After {
        self.await_exit(client, refusal).await;
        client.worker.read_clock();
        self.end(client, Some(refusal), status, Some(bytes));
        After::Close
    }

    /// Leaves the dyno's half to itself.
    fn linger(
        &mut self,
        client: &Client<impl Transport>,
        app: &Arc<App>,
        relay: Relay,
        client_gone: bool,
    ) {
        let Some((lease, mut stream)) = relay.into_parts() else { return };
        if client_gone {
            stream.shut_write();
        }
        linger::spawn(
            &client.worker,
            Linger {
                app: app.clone(),
                request_id: self.request_id.clone(),
                is_head: self.request.is_head,
                since: self.connected.unwrap_or(self.began),
                lease,
                slot: self.in_flight.as_mut().and_then(|in_flight| in_flight.app.take()),
                stream,
            },
        );
    }

    /// Answers in the router's own name. `whole`: the request has been read to its end.
    async fn refuse<T: Transport>(
        &mut self,
        client: &mut Client<T>,
        refusal: Refusal,
        whole: bool,
    ) -> After {
        let row = refusal.row();
        let reached = self.connected.is_some();
        if row.status == 499 {
            self.end(client, Some(refusal), 499, reached.then_some(0));
            return After::Close;
        }
        let keep = whole
            && client.may_keep(&self.request)
            && !matches!(refusal, Refusal::BadRequest { .. });
        let connection = if keep { "keep-alive" } else { "close" };
        let mut bytes = Vec::new();
        let worker = client.worker.clone();
        let body = Reply {
            refusal,
            request_id: &self.request_id,
            wants_json: self.request.wants_json,
            is_head: self.request.is_head,
            connection: T::FRAMED.then_some(connection),
            policy: self.app.as_ref().map(|app| &app.policy),
            note: self.note.as_deref().unwrap_or_default(),
        }
        .write(
            &mut client.transport,
            &mut bytes,
            &mut worker.date.borrow_mut(),
            worker.now(),
        );
        let delivered = self.deliver(client, bytes).await;
        self.await_exit(client, refusal).await;
        client.worker.read_clock();
        self.end(client, Some(refusal), row.status, reached.then_some(body as u64));
        match (delivered, keep) {
            (false, _) => After::Close,
            (true, true) => After::Keep,
            (true, false) => After::WindDown,
        }
    }

    /// Writes the router's own answer; `false` if the client does not take it.
    async fn deliver(&self, client: &mut Client<impl Transport>, reply: Vec<u8>) -> bool {
        let rolling = self.app.as_ref().map_or(limits::REPLY, |app| app.policy.timeouts.rolling);
        client.deadline.set(client.worker.read_clock().deadline(rolling));
        let mut reply = Pending::from(reply);
        poll_fn(|cx| {
            let mut moved = 0;
            let flushed = reply.poll_flush(&mut client.transport, cx, &mut moved);
            if moved > 0 {
                client.deadline.set(client.worker.read_clock().deadline(rolling));
            }
            match flushed {
                Poll::Ready(written) => {
                    client.transport.finish();
                    Poll::Ready(written.is_ok())
                }
                Poll::Pending if client.deadline.is_due() || client.worker.is_stopping() => {
                    Poll::Ready(false)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// A reset is heard before the process's end is: gives the supervisor a tick to say how a dyno died, so
    /// that the line can.
    async fn await_exit(&self, client: &Client<impl Transport>, refusal: Refusal) {
        let died = matches!(refusal, Refusal::ClosedWithoutResponse | Refusal::ServerInterrupted);
        let Some(dyno) = self.dyno.as_ref().filter(|dyno| died && dyno.is_managed()) else {
            return;
        };
        client.deadline.set(client.worker.read_clock().deadline(limits::TICK));
        client.deadline.wait_for_changes(true);
        poll_fn(|_| {
            if dyno.exit().is_some() || client.deadline.is_due() || client.worker.is_stopping() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        client.deadline.wait_for_changes(false);
    }

    /// The two sockets become one pipe.
    async fn pipe<T: Transport>(
        &mut self,
        client: &mut Client<T>,
        app: &Arc<App>,
        relay: Relay,
        switched: Switched,
    ) -> After {
        let Some((lease, stream)) = relay.into_parts() else { return After::Close };
        let timeouts = &app.policy.timeouts;
        let _open = app.load.as_ref().map(|load| load.pipe(client.worker.index));
        let piped = upgrade::pipe(client, lease.dyno(), stream, switched, timeouts).await;
        drop(lease);
        client.worker.read_clock();
        self.close_books(client, piped.refusal, T::SWITCHED, Some(piped.to_client));
        // The dyno's last bytes must not be lost to a reset while the client is still sending.
        if piped.refusal.is_none() { After::WindDown } else { After::Close }
    }

    /// What its number of dynos follows, where it follows something, and what its release is judged by; pipes say
    /// nothing of how long requests take.
    fn end<T: Transport>(
        &self,
        client: &Client<T>,
        refusal: Option<Refusal>,
        status: u16,
        bytes: Option<u64>,
    ) {
        if let Some(load) = self.app.as_ref().and_then(|app| app.load.as_ref())
            && let Some(wait) = self.connect
        {
            let worker = &client.worker;
            let service = self.connected.map(|connected| worker.now().since(connected));
            load.count(worker.index, wait, service, refusal.is_none());
        }
        if let Some(tally) = self.dyno.as_ref().and_then(|dyno| dyno.tally()) {
            let worker = &client.worker;
            let took = worker.now().since(self.connected.unwrap_or(self.began));
            let failed = refusal.map_or(status >= 500, Refusal::blames_dyno);
            tally.count(worker.index, took, failed);
        }
        self.close_books(client, refusal, status, bytes);
    }

    /// The books: one line and one count, in the turn in which the exchange ends (whose clock was read).
    fn close_books<T: Transport>(
        &self,
        client: &Client<T>,
        refusal: Option<Refusal>,
        status: u16,
        bytes: Option<u64>,
    ) {
        let worker: &Worker = &client.worker;
        let now = worker.now();
        worker.counters(self.app.as_deref()).request(
            status,
            refusal,
            now.since(self.began),
            self.retries,
        );
        let outcome = Outcome {
            app: self.app.as_ref().map_or("-", |app| app.name.as_str()),
            request: self.request.line(),
            refusal,
            dyno: self.dyno.as_deref(),
            connect: self.connect,
            service: self.connected.map(|connected| now.since(connected)),
            status,
            bytes,
            protocol: T::PROTOCOL,
            tls: self.tls,
            retries: self.retries,
        };
        worker.access_log.borrow_mut().request(&outcome, now);
    }
}

/// Whether a request has come on a connection that was made for another app: a name's certificate, and
/// whatever its clients were promised with it, hold for its own app alone. A client that shares connections
/// between names (RFC 9113 §9.1.1) makes one for this name when it hears of it (RFC 9110 §7.4).
fn is_misdirected(
    table: &Table,
    head: &RequestHead<'_, '_>,
    app: Option<&Arc<App>>,
    security: Option<Security<'_>>,
) -> bool {
    let Some(name) = security.and_then(|security| security.server_name) else { return false };
    if matches!(&head.lookup, Host::Name(host) if **host == *name) {
        return false;
    }
    let meant = table.find(&Host::Name(name.into()));
    meant.map(|app| app.id) != app.map(|app| app.id)
}

/// What an ACME server asks for (RFC 8555 §8.3), at whichever name.
fn challenge_answer(worker: &Worker, path: &[u8]) -> Option<String> {
    let token = path.strip_prefix(b"/.well-known/acme-challenge/")?;
    worker.certs.http_answer(std::str::from_utf8(token).ok()?)
}

/// Where an app that is for HTTPS only has its plain requests go. Bare addresses are excepted: no certificate
/// is theirs, and health probes ask at them.
fn https_only(worker: &Worker, head: &RequestHead<'_, '_>, app: Option<&App>) -> Option<String> {
    let (Host::Name(_), true) = (&head.lookup, app?.policy.force_https) else { return None };
    let Target::Origin(path) = head.target else { return None };
    let (name, port) = head.host.rsplit_once(':').unwrap_or((head.host, "80"));
    // Who was asked at the usual port is behind the other usual one too, whatever is bound here.
    match worker.https_port() {
        Some(own) if port != "80" && own != 443 => Some(format!("https://{name}:{own}{path}")),
        _ => Some(format!("https://{name}{path}")),
    }
}

/// What admission refuses (Heroku: Error Codes); a dyno that is missing is the search's business.
fn refusal(app: Option<&App>) -> Option<Refusal> {
    match app {
        None => Some(Refusal::NoSuchApp),
        Some(app) if app.policy.maintenance => Some(Refusal::Maintenance),
        Some(_) => None,
    }
}

/// Counts a request against the limits of its app, or refuses it.
fn count(
    client: &Client<impl Transport>,
    app: &App,
    trusted: bool,
    origin: impl FnOnce() -> Option<ClientNet>,
) -> Result<Option<Box<InFlight>>, Refusal> {
    let Some(traffic) = app.traffic.as_deref() else { return Ok(None) };
    let asking = Asking {
        connection: client.connection(),
        owner: client.peer.ip().filter(|_| !trusted).map(ClientNet::from),
        client: origin(),
        now: client.worker.now(),
    };
    let in_flight = traffic::admit(traffic, &client.worker.seats, &asking);
    in_flight.map(Box::new).map(Some).map_err(Refusal::TooManyRequests)
}

/// Method and path of a head that cannot be read, as far as they can be made out.
fn guess_request_line(bytes: &[u8]) -> (&str, &[u8]) {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let is_method = |word: &&[u8]| word.len() <= 127 && word.iter().all(u8::is_ascii_alphabetic);
    let method = words.next().filter(is_method).and_then(|word| std::str::from_utf8(word).ok());
    let path = words.next().unwrap_or_default();
    (method.unwrap_or_default(), &path[..path.len().min(1024)])
}

impl From<BadRequest> for Refusal {
    fn from(bad: BadRequest) -> Self {
        Self::BadRequest { status: bad.status(), cause: bad.cause() }
    }
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Self {
        BadRequest::from(bad).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::http1::Http1;

    #[test]
    fn a_request_in_flight_is_small() {
        // Boxed once per request: glibc serves up to 1,008 bytes from its small bins.
        fn size<F: Future>(_: fn(Exchange, Client<Http1>) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(Exchange::run);
        assert!(size <= 1008, "{size} bytes; the relay has {} of them", size_of::<Relay>());
    }
}
