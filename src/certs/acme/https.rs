//! Asking the ACME server: HTTPS and nothing else, everything bounded, refusals with their reason.
//!
//! An own client on hyper, which is here anyway, in place of instant-acme's: that one brings a pool, HTTP/2
//! and another set of roots, and loses both the status of an answer that is no problem document and its
//! `Retry-After`. A connection per request, resumed by ticket: an order is a dozen requests in two months.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use tokio::time::timeout;

use crate::config::limits;
use crate::outside::{DialError, Dialer, ExchangeError, Http};

/// RFC 8555 §6.1: the client names itself.
const AGENT: &str = concat!("dynomesh/", env!("CARGO_PKG_VERSION"), " (instant-acme)");
/// What stands before a problem's type (RFC 8555 §6.7).
const PROBLEM: &str = "urn:ietf:params:acme:error:";

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Https {
    dialer: Dialer,
}

/// Why a request to the server has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The configuration's directory, or an address that the server gave.
    #[error("{0} is no https URL")]
    Url(Uri),
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The exchange broke off, or the answer is too long.
    #[error("ask {0}: {1}")]
    Exchange(Authority, ExchangeError),
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
    /// A client that trusts whom the dialer trusts.
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self { dialer }
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, AskError> {
        let uri = request.uri();
        let authority = match (uri.scheme() == Some(&Scheme::HTTPS), uri.authority()) {
            (true, Some(authority)) => authority.clone(),
            _ => return Err(AskError::Url(uri.clone())),
        };
        let asked = async {
            let host = authority.host().trim_start_matches('[').trim_end_matches(']');
            let stream = self.dialer.tls(host, authority.port_u16().unwrap_or(443)).await?;
            let failed = |error| AskError::Exchange(authority.clone(), error);
            let mut http = Http::on(stream).await.map_err(|error| failed(error.into()))?;
            let request = to_origin(request, &authority);
            http.ask(request, limits::ACME_ANSWER_MAX).await.map_err(failed)
        };
        match timeout(limits::ACME_REQUEST, asked).await {
            Ok(answer) => Ok(judged(answer?)?),
            Err(_) => Err(AskError::TimedOut(authority.clone(), limits::ACME_REQUEST)),
        }
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
        let https = Https::new(Dialer::distrustful());
        let error = https.ask(request).await.err().unwrap();
        assert_eq!(error.to_string(), "http://127.0.0.1:1/ is no https URL");
    }
}
