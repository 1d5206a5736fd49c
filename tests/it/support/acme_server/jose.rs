//! Signed requests (RFC 8555 §6.2): what was sent is what somebody signed, for here and for now.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Shared;
use super::book::Problem;

/// A request whose signature was verified.
pub(super) struct Signed {
    pub(super) key: Jwk,
    /// The account's URL, or `None` where the key itself was sent.
    pub(super) kid: Option<String>,
    /// JSON, or nothing where the request only reads (§6.3).
    pub(super) payload: Vec<u8>,
}

/// A public key on P-256 (RFC 7518 §6.2).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

#[derive(Deserialize)]
struct Jws {
    protected: String,
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    nonce: String,
    url: String,
    jwk: Option<Jwk>,
    kid: Option<String>,
}

/// Verifies everything that §6.2 to §6.5 ask of a request but which account it may speak for.
pub(super) fn verify(
    shared: &Shared,
    path: &str,
    headers: &http::HeaderMap,
    body: &[u8],
) -> Result<Signed, Problem> {
    let malformed = |detail: &str| Problem::new(400, "malformed", detail);
    let kind = headers.get("content-type").map(|kind| kind.as_bytes());
    if kind != Some(b"application/jose+json") {
        return Err(Problem::new(415, "malformed", "this is not application/jose+json"));
    }
    if !headers.contains_key("user-agent") {
        return Err(malformed("a client names itself (§6.1)"));
    }
    let jws = serde_json::from_slice::<Jws>(body).map_err(|_| malformed("this is no JWS"))?;
    let protected = decode(&jws.protected)?;
    let protected = serde_json::from_slice::<Protected>(&protected);
    let protected = protected.map_err(|_| malformed("the protected header is incomplete"))?;
    if protected.alg != "ES256" {
        return Err(Problem::new(400, "badSignatureAlgorithm", "ES256 only"));
    }
    if protected.url != shared.url(path) {
        return Err(Problem::new(401, "unauthorized", "signed for another URL"));
    }
    let mut book = shared.book();
    let key = match (&protected.jwk, &protected.kid) {
        (Some(key), None) => key.clone(),
        (None, Some(kid)) => book.key(shared, kid)?,
        _ => return Err(malformed("either jwk or kid")),
    };
    let signed = format!("{}.{}", jws.protected, jws.payload);
    let valid = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point()?)
        .verify(signed.as_bytes(), &decode(&jws.signature)?);
    valid.map_err(|_| malformed("the signature is another one"))?;
    book.use_nonce(&protected.nonce)?;
    Ok(Signed { key, kid: protected.kid, payload: decode(&jws.payload)? })
}

impl Jwk {
    /// RFC 7638: what key authorizations are made with.
    pub(super) fn thumbprint(&self) -> String {
        let Self { kty, crv, x, y } = self;
        let canonical = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#);
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
    }

    /// The point, uncompressed (SEC 1 §2.3.3).
    fn point(&self) -> Result<Vec<u8>, Problem> {
        if (self.kty.as_str(), self.crv.as_str()) != ("EC", "P-256") {
            return Err(Problem::new(400, "badPublicKey", "P-256 only"));
        }
        Ok([vec![4], decode(&self.x)?, decode(&self.y)?].concat())
    }
}

/// Without padding, as all of RFC 8555 (§6.1).
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Problem> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text);
    decoded.map_err(|_| Problem::new(400, "malformed", "this is not base64url without padding"))
}
