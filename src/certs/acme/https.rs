//! Asking the ACME server: HTTPS and nothing else, everything bounded, refusals with their reason.
//!
//! An own client on hyper, which is here anyway, in place of instant-acme's: that one brings a pool, HTTP/2
//! and another set of roots, and loses both the status of an answer that is no problem document and its
//! `Retry-After`. A connection per request, resumed by ticket: an order is a dozen requests in two months.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::limits;

/// RFC 8555 §6.1: the client names itself.
const AGENT: &str = concat!("dynomesh/", env!("CARGO_PKG_VERSION"), " (instant-acme)");
/// What stands before a problem's type (RFC 8555 §6.7).
const PROBLEM: &str = "urn:ietf:params:acme:error:";

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Https {
    tls: TlsConnector,
}

/// Why the roots to trust could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// `[acme] ca_file` cannot be read.
    #[error("read {} ([acme] ca_file): {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// `[acme] ca_file` has nothing to trust.
    #[error("{} ([acme] ca_file) has no certificate that can be trusted", .0.display())]
    Empty(PathBuf),
    /// Neither the system nor the file has any.
    #[error(
        "the system has no certificates to trust (Debian: ca-certificates), and there is no [acme] ca_file"
    )]
    None,
}

/// Why a request to the server has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The configuration's directory, or an address that the server gave.
    #[error("{0} is no https URL")]
    Url(Uri),
    /// The host of the URL is no name.
    #[error("{0}: {1}")]
    Host(Authority, InvalidDnsNameError),
    /// No address of the server accepts.
    #[error("connect to {0}: {1}")]
    Connect(Authority, io::Error),
    /// The handshake; above all a certificate that is not trusted.
    #[error("connect to {0}: {1}")]
    Tls(Authority, io::Error),
    /// The exchange broke off.
    #[error("ask {0}: {1}")]
    Exchange(Authority, hyper::Error),
    /// The answer's body broke off or is too long.
    #[error("ask {0}: {1}")]
    Body(Authority, Box<dyn StdError + Send + Sync>),
    /// It took longer than [`limits::ACME_REQUEST`].
    #[error("{0} did not answer within {1:?}")]
    TimedOut(Authority, Duration),
    /// It answered with an error.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// An answer that is an error.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Refused {
    status: StatusCode,
    problem: Option<Problem>,
    /// How long the server wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    /// Whether it is this problem of RFC 8555 §6.7, say `accountDoesNotExist`.
    pub(crate) fn is(&self, kind: &str) -> bool {
        let told = self.problem.as_ref().and_then(|problem| problem.r#type.as_deref());
        told.and_then(|told| told.strip_prefix(PROBLEM)) == Some(kind)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Some(problem) => Told(problem).fmt(f),
            None => write!(f, "the server answered {}", self.status),
        }
    }
}

/// A problem in the server's own words: `DETAIL (KIND)`, with those of its parts.
pub(crate) struct Told<'a>(pub(crate) &'a Problem);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |kind: &Option<String>| {
            let kind = kind.as_deref().unwrap_or("no type of problem");
            kind.strip_prefix(PROBLEM).unwrap_or(kind).to_owned()
        };
        let detail = |detail: &Option<String>| detail.clone().unwrap_or("no detail".into());
        let Problem { r#type, detail: text, subproblems, .. } = self.0;
        write!(f, "{} ({})", detail(text), kind(r#type))?;
        for part in subproblems {
            write!(f, "; {} ({})", detail(&part.detail), kind(&part.r#type))?;
        }
        Ok(())
    }
}

impl Https {
    /// Trusts what the system trusts, and the certificates of a file beside it. Reads files: not for a
    /// runtime that has other things to do.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, RootsError> {
        let mut roots = RootCertStore::empty();
        // Files of the system that cannot be read are missed only if there are no others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let (added, _) = roots.add_parsable_certificates(read_pem(path)?);
            if added == 0 {
                return Err(RootsError::Empty(path.to_owned()));
            }
        }
        if roots.is_empty() {
            return Err(RootsError::None);
        }
        Ok(Self { tls: TlsConnector::from(Arc::new(trusting(roots))) })
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, AskError> {
        let uri = request.uri();
        let authority = match (uri.scheme() == Some(&Scheme::HTTPS), uri.authority()) {
            (true, Some(authority)) => authority.clone(),
            _ => return Err(AskError::Url(uri.clone())),
        };
        let asked = async {
            let stream = self.connect(&authority).await?;
            exchange(stream, to_origin(request, &authority), &authority).await
        };
        match timeout(limits::ACME_REQUEST, asked).await {
            Ok(answer) => Ok(judged(answer?)?),
            Err(_) => Err(AskError::TimedOut(authority.clone(), limits::ACME_REQUEST)),
        }
    }

    async fn connect(
        &self,
        authority: &Authority,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, AskError> {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| AskError::Host(authority.clone(), error))?;
        let failed = |error| AskError::Connect(authority.clone(), error);
        let port = authority.port_u16().unwrap_or(443);
        let addrs = lookup_host((host, port)).await.map_err(failed)?;
        let stream = connect_any(addrs).await.map_err(failed)?;
        let tls = self.tls.connect(name, stream).await;
        tls.map_err(|error| AskError::Tls(authority.clone(), error))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asked = self.clone().ask(request);
        Box::pin(async move { asked.await.map_err(|error| Error::Other(Box::new(error))) })
    }
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let failed = |source| RootsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// One address after the other: the first may be one of a family that leads nowhere from here.
async fn connect_any(addrs: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in addrs {
        match timeout(limits::ACME_CONNECT, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// RFC 9112 §3.2.1: to the server itself goes the path alone.
fn to_origin(
    mut request: Request<BodyWrapper<Bytes>>,
    authority: &Authority,
) -> Request<BodyWrapper<Bytes>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse().expect("it was part of a URI");
    *request.uri_mut() = path;
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host).expect("an authority has visible characters only");
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request
}

async fn exchange(
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    request: Request<BodyWrapper<Bytes>>,
    authority: &Authority,
) -> Result<Response<Bytes>, AskError> {
    let failed = |error| AskError::Exchange(authority.clone(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let body = Limited::new(body, limits::ACME_ANSWER_MAX).collect().await;
        let body = body.map_err(|error| AskError::Body(authority.clone(), error))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    let mut answer = pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection has ended; what it had read is with the answer, or an error is.
        _ = connection => answer.await,
    }
}

/// Good answers go on to instant-acme, and so does `badNonce`, which it repeats by itself.
fn judged(answer: Response<Bytes>) -> Result<BytesResponse, Refused> {
    let (parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        let problem = serde_json::from_slice::<Problem>(&body).ok();
        let problem = problem.filter(|it| it.r#type.is_some() || it.detail.is_some());
        let retry_after = retry_after(&parts.headers, SystemTime::now());
        let refused = Refused { status: parts.status, problem, retry_after };
        if !refused.is("badNonce") {
            return Err(refused);
        }
    }
    Ok(BytesResponse { parts, body: Box::new(body) })
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, headers: &[(&str, &str)], body: &str) -> Option<Refused> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        judged(answer.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()).err()
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        let check = |status, body, expected: &str| {
            assert_eq!(refused(status, &[], body).unwrap().to_string(), expected);
        };
        check(500, "<html>oops", "the server answered 500 Internal Server Error");
        check(503, "{}", "the server answered 503 Service Unavailable");
        check(301, "", "the server answered 301 Moved Permanently");
        check(
            403,
            r#"{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "detail": "not that one",
                "subproblems": [{"type": "about:blank", "detail": "nor this"}]}"#,
            "not that one (rejectedIdentifier); nor this (about:blank)",
        );
        check(400, r#"{"detail": "bad"}"#, "bad (no type of problem)");
    }

    #[test]
    fn good_answers_and_bad_nonces_go_on() {
        assert!(refused(201, &[], "anything").is_none());
        let nonce = r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#;
        assert!(refused(400, &[], nonce).is_none());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let later = httpdate::fmt_http_date(now + Duration::from_secs(90));
        let earlier = httpdate::fmt_http_date(now - Duration::from_secs(90));
        for (value, expected) in
            [("120", Some(120)), (&later, Some(90)), (&earlier, None), ("soon", None), ("", None)]
        {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
        }
        let limited = refused(429, &[("retry-after", "3600")], "").unwrap();
        assert_eq!(limited.retry_after, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn a_request_goes_to_the_origin() {
        let body = BodyWrapper::from(Vec::new());
        let request = Request::post("https://user@ca.example:14000/dir?x=1").body(body).unwrap();
        let authority = request.uri().authority().unwrap().clone();
        let request = to_origin(request, &authority);
        assert_eq!(request.uri(), "/dir?x=1");
        assert_eq!(request.headers()[HOST], "ca.example:14000");
    }

    #[tokio::test]
    async fn nothing_is_asked_in_the_clear() {
        let request = Request::get("http://127.0.0.1:1/").body(BodyWrapper::default()).unwrap();
        let https = Https { tls: TlsConnector::from(Arc::new(trusting(RootCertStore::empty()))) };
        let error = https.ask(request).await.err().unwrap();
        assert_eq!(error.to_string(), "http://127.0.0.1:1/ is no https URL");
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.pem");
        let check = |expected: &str| {
            let error = Https::new(Some(&path)).err().unwrap().to_string();
            assert!(error.contains("root.pem ([acme] ca_file)"), "{error}");
            assert!(error.contains(expected), "{error}");
        };
        check("No such file");
        std::fs::write(&path, "nothing").unwrap();
        check("has no certificate that can be trusted");
    }
}
