//! The other side of log drains: syslog over TCP and TLS, and HTTPS in logplex' form.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::becomes_true;

/// A server that takes a drain's lines. On drop it and its connections end.
pub(crate) struct DrainServer {
    addr: SocketAddr,
    certificate: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

/// One POST, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) messages: Vec<String>,
    /// What it was answered.
    pub(crate) status: u16,
}

#[derive(Default)]
struct Shared {
    /// Without their counts.
    messages: Mutex<Vec<String>>,
    posts: Mutex<Vec<Post>>,
    /// What the next POSTs are answered; afterwards 204.
    answers: Mutex<VecDeque<u16>>,
    /// Whether it answers at all.
    stalled: watch::Sender<bool>,
}

impl DrainServer {
    /// RFC 6587 over TCP.
    pub(crate) async fn syslog() -> Self {
        Self::start(false, false).await
    }

    /// The same over TLS.
    pub(crate) async fn syslog_tls() -> Self {
        Self::start(true, false).await
    }

    /// HTTPS.
    pub(crate) async fn logplex() -> Self {
        Self::start(true, true).await
    }

    async fn start(tls: bool, http: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![cert.der().clone()], key).unwrap();
        let acceptor = tls.then(|| TlsAcceptor::from(Arc::new(config)));
        let shared = Arc::new(Shared::default());
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, acceptor, http, shared.clone()));
        Self { addr, certificate: cert.pem(), shared, _serving: serving }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// For `[logs] ca_file`.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Everything that it has accepted.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// Every POST so far.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.shared.posts.lock().unwrap().clone()
    }

    /// Waits for a message that contains this.
    pub(crate) async fn has(&self, text: &str) -> String {
        let find = || self.messages().into_iter().find(|it| it.contains(text));
        becomes_true(&format!("{text:?} in a drain"), async || find().is_some()).await;
        find().unwrap()
    }

    /// Answers the next POSTs so.
    pub(crate) fn answers(&self, statuses: &[u16]) {
        self.shared.answers.lock().unwrap().extend(statuses);
    }

    /// Answers nothing any more, or again.
    pub(crate) fn stalls(&self, stalled: bool) {
        self.shared.stalled.send_replace(stalled);
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    http: bool,
    shared: Arc<Shared>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            match acceptor {
                None => take(stream, &shared).await,
                Some(acceptor) => {
                    // Who does not trust the certificate leaves.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    if !http {
                        return take(stream, &shared).await;
                    }
                    let service = service_fn(|request| answer(shared.clone(), request));
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
    }
}

async fn take(stream: impl AsyncRead + Unpin, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    while let Some(message) = frame(&mut stream).await {
        shared.messages.lock().unwrap().push(message);
    }
}

/// A message with its count before it; `None` at the end.
async fn frame(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut count = Vec::new();
    stream.read_until(b' ', &mut count).await.ok().filter(|length| *length > 0)?;
    let count = String::from_utf8(count).unwrap();
    let mut message = vec![0; count.trim_end().parse().unwrap()];
    stream.read_exact(&mut message).await.ok()?;
    Some(String::from_utf8(message).unwrap())
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // A client that breaks off gets no answer anyway.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (mut messages, mut rest) = (Vec::new(), &body[..]);
    while let Some(message) = frame(&mut rest).await {
        messages.push(message);
    }
    let mut stalled = shared.stalled.subscribe();
    let _ = stalled.wait_for(|stalled| !stalled).await;
    let status = shared.answers.lock().unwrap().pop_front().unwrap_or(204);
    if status < 300 {
        shared.messages.lock().unwrap().extend(messages.iter().cloned());
    }
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let headers = parts.headers.iter().map(header).collect();
    let path = parts.uri.to_string();
    shared.posts.lock().unwrap().push(Post { path, headers, messages, status });
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}
