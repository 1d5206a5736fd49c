//! Who may ask over the network: the bearer of a token, for what its scope allows.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::control::api::hosts::Part;
use crate::control::api::rate::Rates;
use crate::control::logs::Origin;
use crate::control::{Problem, Running};
use crate::model::Scope;

/// What stands before the API on one way to it.
#[derive(Clone)]
pub(in crate::control) struct Gate {
    pub(in crate::control) running: Arc<Running>,
    pub(in crate::control) rates: Arc<Rates>,
    /// What stands behind it.
    pub(in crate::control) part: Part,
    /// `https` or `http`.
    pub(in crate::control) scheme: &'static str,
}

/// Lets a request pass whose token allows it, and notes by which name its client knows this daemon: what leads back here
/// has to be of that name, also behind `ssh -L`.
pub(in crate::control) async fn require_token(
    State(gate): State<Gate>,
    mut request: Request,
    next: Next,
) -> Response {
    match gate.check(request.method(), request.uri().path(), request.headers()).await {
        Ok(left) => {
            let (scheme, host) = (gate.scheme, host(request.headers()).to_owned());
            request.extensions_mut().insert(Origin(format!("{scheme}://{host}")));
            let mut response = next.run(request).await;
            response.headers_mut().insert("ratelimit-remaining", HeaderValue::from(left));
            response
        }
        Err(problem) => problem.into_response(),
    }
}

impl Gate {
    /// Whether a request may pass; how many more its token has left.
    async fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<u64, Problem> {
        let Self { running, rates, .. } = self;
        self.refuse_foreign_host(headers)?;
        let unauthorized = || Problem {
            status: StatusCode::UNAUTHORIZED,
            id: "unauthorized",
            message: "Invalid credentials provided.".into(),
        };
        let token = token(headers).ok_or_else(unauthorized)?;
        rates.may_try(&token).map_err(|_| too_many("Too many requests came with wrong tokens"))?;
        let scope = running.store.scope_of(&token).await;
        let scope = scope.map_err(|error| Problem::internal(error.to_string()))?;
        let Some(scope) = scope else {
            rates.note_bad();
            return Err(unauthorized());
        };
        let left = rates.take(&token).map_err(|_| too_many("This token has asked too often"))?;
        let needed = needed(method, path);
        if scope < needed {
            let message = format!(
                "The token's scope is {}, and this needs {}.",
                scope.as_str(),
                needed.as_str()
            );
            return Err(Problem { status: StatusCode::FORBIDDEN, id: "forbidden", message });
        }
        Ok(left)
    }

    /// A page in somebody's browser can send requests here under a name of its own that leads to this address.
    fn refuse_foreign_host(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let (host, config) = (host(headers), self.running.config.load());
        if self.part.is(host, &config.admin) {
            return Ok(());
        }
        let names = self.part.names(&config.admin).join(", ");
        Err(Problem {
            status: StatusCode::MISDIRECTED_REQUEST,
            id: "bad_request",
            message: format!("This is the API of {names}, not of {host:?} ([admin] api_names)."),
        })
    }
}

fn too_many(what: &str) -> Problem {
    let message = format!("{what}: wait a moment, and ask less often.");
    Problem::too_many("rate_limit", message)
}

fn host(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|it| it.to_str().ok()).unwrap_or_default()
}

/// `Bearer TOKEN`, or the password of `Basic`, as git and curl send it.
fn token(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(rest.trim()));
    let decoded = String::from_utf8(decoded?.ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// What a request needs: to end an app, all; to see secrets or change anything, to operate.
fn needed(method: &Method, path: &str) -> Scope {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // RFC 9110 §9.3.2: what is answered to it is of what GET would be answered.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    match (method, parts.as_slice()) {
        (&Method::DELETE, ["apps", _]) => Scope::Admin,
        // There may be a password in the URL of a drain.
        (&Method::GET, [.., "config-vars" | "log-drains"]) => Scope::Operate,
        (&Method::GET, _) => Scope::Read,
        // They only ask.
        (&Method::POST, ["filters", "apps"] | ["actions", "addons", "resolve"]) => Scope::Read,
        _ => Scope::Operate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn tokens_are_found() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Basic aGVyb2t1OmFiYw==", Some("abc")),
            ("Basic !", None),
            ("abc", None),
            ("Digest abc", None),
        ] {
            assert_eq!(token(&headers("authorization", value)).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn what_a_request_needs() {
        let check = |method: Method, path: &str, expected: Scope| {
            assert_eq!(needed(&method, path), expected, "{method} {path}");
        };
        check(Method::GET, "/apps/shop/dynos", Scope::Read);
        check(Method::GET, "/apps/shop/config-vars", Scope::Operate);
        check(Method::GET, "/apps/shop/releases/3/config-vars", Scope::Operate);
        check(Method::GET, "/apps/shop/log-drains", Scope::Operate);
        check(Method::HEAD, "/apps/shop/dynos", Scope::Read);
        check(Method::HEAD, "/apps/shop/config-vars", Scope::Operate);
        check(Method::HEAD, "/apps/shop/log-drains", Scope::Operate);
        check(Method::PATCH, "/apps/shop/formation", Scope::Operate);
        check(Method::DELETE, "/apps/shop/dynos", Scope::Operate);
        check(Method::DELETE, "/apps/shop", Scope::Admin);
    }
}
