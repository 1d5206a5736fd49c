//! A certificate authority that speaks RFC 8555: what it is told is verified, what it is shown is looked at.
//!
//! It knows orders of one name, and looks for their challenges on the ports that the test says, whatever the
//! name. Every seventh nonce is bad. What a test wants to go wrong goes wrong once.

mod book; // accounts, orders, and what may be done with them
mod jose; // signed requests
mod validate; // looking for what a challenge asks for
mod issue; // certificates

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use book::{Book, Problem};
use issue::Issuer;

pub(crate) use issue::Issued;

/// The running server. It ends when it is dropped.
pub(crate) struct AcmeServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

/// A resource, as RFC 8555 §7.1 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Directory,
    NewNonce,
    NewAccount,
    Account,
    NewOrder,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
}

/// What goes wrong with the next request of a resource.
pub(crate) enum Fault {
    /// A problem document, with a `Retry-After`.
    Problem(u16, &'static str, Option<u32>),
    /// Something else with that status.
    Answer(u16, &'static str),
}

struct Shared {
    base: String,
    issuer: Issuer,
    book: Mutex<Book>,
    /// Where challenges are looked for; until somebody says so they are not.
    targets: watch::Sender<Option<Targets>>,
}

/// Where a name's ports 80 and 443 are.
#[derive(Clone, Copy)]
struct Targets {
    http: SocketAddr,
    https: SocketAddr,
}

/// What is sent back. `location` is a path.
struct Reply {
    status: u16,
    location: Option<String>,
    retry_after: Option<u32>,
    body: Body,
}

enum Body {
    Json(Value),
    Problem(Problem),
    Chain(String),
    Raw(&'static str),
}

impl AcmeServer {
    /// Listens on a port of the kernel's choice.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let issuer = Issuer::new();
        let acceptor = TlsAcceptor::from(issuer.server_config());
        let base = format!("https://{addr}");
        let (book, targets) = (Mutex::default(), watch::Sender::default());
        let shared = Arc::new(Shared { base, issuer, book, targets });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, acceptor, shared.clone()));
        Self { addr, shared, _accepting: accepting }
    }

    /// For `[acme] directory`.
    pub(crate) fn directory(&self) -> String {
        format!("https://{}/directory", self.addr)
    }

    /// The root of its own certificate and of those it issues, PEM.
    pub(crate) fn root(&self) -> String {
        self.shared.issuer.root()
    }

    /// Where challenges are looked for from now on, in place of the ports 80 and 443 of the name. Until it is
    /// said nothing is looked for.
    pub(crate) fn looks_at(&self, http: SocketAddr, https: SocketAddr) {
        self.shared.targets.send_replace(Some(Targets { http, https }));
    }

    /// What challenges are offered from now on, by their names.
    pub(crate) fn offers(&self, kinds: &[&'static str]) {
        self.shared.book().kinds = kinds.to_vec();
    }

    /// What goes wrong the next time that the resource is asked; several are used up in their order.
    pub(crate) fn fails(&self, resource: Resource, fault: Fault) {
        self.shared.book().faults.push((resource, fault));
    }

    /// What certificates are like from now on.
    pub(crate) fn issues(&self, issued: Issued) {
        self.shared.book().issued = issued;
    }

    /// How often a new order is still processing when it is asked after.
    pub(crate) fn dawdles(&self, polls: u32) {
        self.shared.book().dawdle = polls;
    }

    /// Forgets its accounts, as a server for tests does when it is started anew.
    pub(crate) fn forgets_accounts(&self) {
        self.shared.book().accounts.clear();
    }

    /// What was asked so far.
    pub(crate) fn asked(&self, resource: Resource) -> usize {
        self.shared.book().asked.iter().filter(|asked| **asked == resource).count()
    }

    /// The contacts of each account.
    pub(crate) fn contacts(&self) -> Vec<Vec<String>> {
        self.shared.book().accounts.iter().map(|account| account.contact.clone()).collect()
    }

    /// Each order: its name, the challenge that was answered, and where it stands.
    pub(crate) fn orders(&self) -> Vec<(String, Option<&'static str>, &'static str)> {
        let book = self.shared.book();
        let orders = book.orders.iter();
        orders.map(|order| (order.name.clone(), order.answered, order.status)).collect()
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            // Who does not trust the certificate, or leaves, is no fault of this server.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| serve(shared.clone(), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = parts.uri.path();
    let reply = match resource(path) {
        None => Err(Problem::new(404, "malformed", "there is no such resource")),
        Some(resource) => {
            let fault = shared.book().note(resource);
            match fault {
                Some(fault) => Ok(fault.reply()),
                None if parts.method == Method::POST => {
                    post(&shared, resource, path, &parts.headers, &body).await
                }
                None => get(&shared, resource, &parts.method),
            }
        }
    };
    let reply = reply.unwrap_or_else(|problem| Reply {
        status: problem.status,
        location: None,
        retry_after: None,
        body: Body::Problem(problem),
    });
    Ok(reply.response(&shared))
}

fn resource(path: &str) -> Option<Resource> {
    Some(match path.split('/').nth(1)? {
        "directory" => Resource::Directory,
        "new-nonce" => Resource::NewNonce,
        "new-account" => Resource::NewAccount,
        "account" => Resource::Account,
        "new-order" => Resource::NewOrder,
        "order" => Resource::Order,
        "authorization" => Resource::Authorization,
        "challenge" => Resource::Challenge,
        "finalize" => Resource::Finalize,
        "certificate" => Resource::Certificate,
        _ => return None,
    })
}

/// RFC 8555 §6.3: only these are had by GET.
fn get(shared: &Shared, resource: Resource, method: &Method) -> Result<Reply, Problem> {
    match resource {
        Resource::Directory if method == Method::GET => Ok(Reply::json(json!({
            "newNonce": shared.url("/new-nonce"),
            "newAccount": shared.url("/new-account"),
            "newOrder": shared.url("/new-order"),
            "meta": { "termsOfService": shared.url("/terms") },
        }))),
        Resource::NewNonce => Ok(Reply::json(Value::Null)),
        _ => Err(Problem::new(405, "malformed", "this is had by POST")),
    }
}

async fn post(
    shared: &Arc<Shared>,
    resource: Resource,
    path: &str,
    headers: &http::HeaderMap,
    body: &[u8],
) -> Result<Reply, Problem> {
    let signed = jose::verify(shared, path, headers, body)?;
    let mut places = path.split('/').skip(2);
    let number = places.next().and_then(|number| number.parse::<usize>().ok());
    let mut book = shared.book();
    if resource == Resource::NewAccount {
        return book.new_account(&signed);
    }
    let account = book.account(shared, &signed)?;
    match (resource, number) {
        (Resource::Account, Some(number)) if number == account => {
            book.change_account(account, &signed.payload)
        }
        (Resource::NewOrder, None) => book.new_order(shared, account, &signed.payload),
        (Resource::Order, Some(number)) => book.poll(shared, account, number),
        (Resource::Authorization, Some(number)) => book.authorization(shared, account, number),
        (Resource::Challenge, Some(number)) => {
            let kind = places.next().unwrap_or_default();
            let challenge = book.answer(account, number, kind, &signed)?;
            let reply = book.challenge(shared, number, challenge.kind);
            drop(book);
            validate::spawn(shared.clone(), challenge);
            Ok(Reply::json(reply))
        }
        (Resource::Finalize, Some(number)) => {
            book.finalize(shared, account, number, &signed.payload)
        }
        (Resource::Certificate, Some(number)) => book.certificate(account, number),
        _ => Err(Problem::new(404, "malformed", "there is no such resource")),
    }
}

impl Fault {
    fn reply(self) -> Reply {
        let (status, retry_after, body) = match self {
            Self::Problem(status, kind, retry_after) => {
                let problem = Problem::new(status, kind, "the test wants it so");
                (status, retry_after, Body::Problem(problem))
            }
            Self::Answer(status, body) => (status, None, Body::Raw(body)),
        };
        Reply { status, location: None, retry_after, body }
    }
}

impl Reply {
    fn json(value: Value) -> Self {
        Self { status: 200, location: None, retry_after: None, body: Body::Json(value) }
    }

    fn created(value: Value, location: String) -> Self {
        Self { status: 201, location: Some(location), ..Self::json(value) }
    }

    fn response(self, shared: &Shared) -> Response<Full<Bytes>> {
        let (kind, body) = match self.body {
            Body::Json(value) => ("application/json", value.to_string()),
            Body::Problem(problem) => ("application/problem+json", problem.json().to_string()),
            Body::Chain(chain) => ("application/pem-certificate-chain", chain),
            Body::Raw(text) => ("text/html", text.to_owned()),
        };
        let status = StatusCode::from_u16(self.status).unwrap();
        let mut response = Response::builder().status(status).header("content-type", kind);
        // RFC 8555 §6.5: each answer has the next one.
        response = response.header("replay-nonce", shared.book().nonce());
        response = response.header("link", format!("<{}>;rel=\"index\"", shared.url("/directory")));
        if let Some(path) = self.location {
            response = response.header("location", shared.url(&path));
        }
        if let Some(seconds) = self.retry_after {
            response = response.header("retry-after", seconds);
        }
        response.body(Full::from(body)).unwrap()
    }
}
