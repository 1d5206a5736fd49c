//! A certificate chain with its key, judged before anybody sees it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, SignatureAlgorithm};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use crate::model::Domain;

/// A certificate that fits its key, is valid now and has names.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain, leaf first, with the key.
    pub key: Arc<CertifiedKey>,
    /// The names that it is for. Empty where it is for addresses only.
    pub names: Vec<Domain>,
    /// When it expires.
    pub not_after: SystemTime,
}

/// Why a chain and a key cannot be served. Fits after the name of the file that [`is_of_key`](Self::is_of_key)
/// tells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The chain is no PEM.
    #[error("is not a certificate in PEM: {0}")]
    ChainNotPem(String),
    /// The chain is PEM of something else.
    #[error("has no certificate (PEM, BEGIN CERTIFICATE)")]
    ChainEmpty,
    /// The leaf cannot be parsed, or asks for what nobody knows.
    #[error("has a certificate that cannot be used: {0}")]
    Unusable(String),
    /// The leaf has no names that clients look at.
    #[error(
        "has no subject alternative name: clients do not look at the common name (RFC 9525 §6.3), so nobody would accept it"
    )]
    Nameless,
    /// The leaf has been valid.
    #[error("expired on {0}")]
    Expired(String),
    /// The leaf will be valid.
    #[error("is valid only from {0} on; if that has passed, this machine's clock is slow")]
    NotYetValid(String),
    /// The key is no PEM.
    #[error("is not a private key in PEM: {0}")]
    KeyNotPem(String),
    /// The key is PEM of something else.
    #[error(
        "has no private key that can be read (PEM of PKCS#8, SEC1 or PKCS#1, without a passphrase)"
    )]
    KeyAbsent,
    /// The key is of a kind that TLS does not use.
    #[error(
        "has a private key that TLS cannot use; RSA, ECDSA (P-256, P-384, P-521) and Ed25519 can"
    )]
    KeyUnusable,
    /// The key belongs to another certificate.
    #[error("is not the key of the first certificate in the chain, where the server's own belongs")]
    KeyOfAnother,
}

impl Flaw {
    /// Whether it is the key's file that is at fault, not the chain's.
    pub fn is_of_key(&self) -> bool {
        matches!(
            self,
            Self::KeyNotPem(_) | Self::KeyAbsent | Self::KeyUnusable | Self::KeyOfAnother
        )
    }
}

impl Certificate {
    /// What its key is; clients that cannot verify the one may verify the other.
    pub(in crate::certs) fn kind(&self) -> &'static str {
        match self.key.key.algorithm() {
            SignatureAlgorithm::RSA => "RSA",
            SignatureAlgorithm::ECDSA => "ECDSA",
            SignatureAlgorithm::ED25519 => "Ed25519",
            _ => "post-quantum",
        }
    }

    /// Reads a chain (PEM, leaf first) and its key (PEM), and judges them as of `now`.
    pub fn from_pem(chain: &[u8], key: &[u8], now: SystemTime) -> Result<Self, Flaw> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| Flaw::ChainNotPem(error.to_string()))?;
        let leaf = chain.first().ok_or(Flaw::ChainEmpty)?.clone();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => Flaw::KeyAbsent,
            error => Flaw::KeyNotPem(error.to_string()),
        })?;
        let key = any_supported_type(&key).map_err(|_| Flaw::KeyUnusable)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|error| match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => Flaw::KeyOfAnother,
            error => Flaw::Unusable(error.to_string()),
        })?;
        let (_, leaf) =
            parse_x509_certificate(&leaf).map_err(|error| Flaw::Unusable(error.to_string()))?;
        let validity = leaf.validity();
        if system_time(validity.not_before) > now {
            return Err(Flaw::NotYetValid(validity.not_before.to_string()));
        }
        if system_time(validity.not_after) < now {
            return Err(Flaw::Expired(validity.not_after.to_string()));
        }
        Ok(Self {
            key: Arc::new(key),
            names: names(&leaf)?,
            not_after: system_time(validity.not_after),
        })
    }
}

/// A date for people to read.
pub(in crate::certs) fn date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = since.as_secs().try_into().ok().and_then(|it| ASN1Time::from_timestamp(it).ok());
    time.map_or_else(|| "a day beyond the calendar".into(), |time| time.to_string())
}

/// A time of a certificate; what lies before 1970 is 1970.
pub(in crate::certs) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or(0))
}

fn names(leaf: &X509Certificate<'_>) -> Result<Vec<Domain>, Flaw> {
    let alternative = leaf.subject_alternative_name();
    let alternative = alternative.map_err(|error| Flaw::Unusable(error.to_string()))?;
    let alternative = alternative.map(|it| it.value.general_names.as_slice()).unwrap_or_default();
    let server = |name: &&GeneralName<'_>| {
        matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
    };
    if !alternative.iter().any(|name| server(&name)) {
        return Err(Flaw::Nameless);
    }
    let domain = |name: &GeneralName<'_>| match name {
        // What is no domain here (f*.example.com) no client takes for one either: RFC 9525 §6.3.
        GeneralName::DNSName(name) => Domain::parse(name).ok(),
        _ => None,
    };
    let mut names = Vec::new();
    for name in alternative.iter().filter_map(domain) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::fixture::{Fixture, Issued};

    /// `-----BEGIN label-----` around something that is not what the label says.
    fn nonsense(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_how_long() {
        let fixture = Fixture::new();
        let names = ["Shop.test", "*.shop.test", "shop.test", "10.0.0.1"];
        let issued = Issued::to(&names);
        let (chain, key) = fixture.issue(&issued);
        let now = SystemTime::now();
        let read = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), now).unwrap();
        assert_eq!(
            read.names,
            [Domain::Exact("shop.test".into()), Domain::Wildcard("shop.test".into())]
        );
        let rounded = issued.not_after.duration_since(read.not_after).unwrap();
        assert!(rounded < Duration::from_secs(1), "{rounded:?}");
        assert_eq!(read.kind(), "ECDSA");
        // What follows the leaf is shown as it is.
        let (other, _) = fixture.issue(&Issued::to(&["ca.test"]));
        let read = Certificate::from_pem((chain + &other).as_bytes(), key.as_bytes(), now).unwrap();
        assert_eq!(read.key.cert.len(), 2);
    }

    #[test]
    fn addresses_are_names_enough() {
        let (chain, key) = Fixture::new().issue(&Issued::to(&["10.0.0.1"]));
        let read = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), SystemTime::now());
        assert_eq!(read.unwrap().names, []);
    }

    #[test]
    fn what_nobody_would_accept_is_refused_with_the_reason() {
        let fixture = Fixture::new();
        let issued = Issued::to(&["shop.test"]);
        let (chain, key) = fixture.issue(&issued);
        let (other_chain, other_key) = fixture.issue(&issued);
        let now = SystemTime::now();
        let check = |chain: &str, key: &str, now: SystemTime, of_key: bool, expected: &str| {
            let flaw = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), now).unwrap_err();
            let said = flaw.to_string();
            assert!(said.starts_with(expected), "{said:?} does not begin with {expected:?}");
            assert_eq!(flaw.is_of_key(), of_key, "{said}");
        };
        check("", &key, now, false, "has no certificate");
        check(&key, &key, now, false, "has no certificate");
        let cut = &chain[..chain.len() - 30];
        check(cut, &key, now, false, "is not a certificate in PEM: ");
        let junk = nonsense("CERTIFICATE");
        check(&junk, &key, now, false, "has a certificate that cannot be used: ");
        check(&chain, "", now, true, "has no private key that can be read");
        check(&chain, &chain, now, true, "has no private key that can be read");
        let locked = nonsense("ENCRYPTED PRIVATE KEY");
        check(&chain, &locked, now, true, "has no private key that can be read");
        check(&chain, &key[..key.len() - 30], now, true, "is not a private key in PEM: ");
        let junk = nonsense("PRIVATE KEY");
        check(&chain, &junk, now, true, "has a private key that TLS cannot use");
        check(&chain, &other_key, now, true, "is not the key of the first certificate");
        let backwards = other_chain + &chain;
        check(&backwards, &key, now, true, "is not the key of the first certificate");
        let (nameless, its_key) = fixture.issue(&Issued::to(&[]));
        check(&nameless, &its_key, now, false, "has no subject alternative name");

        // n-1, n, n+1 of either end.
        let second = Duration::from_secs(1);
        let whole = |time: SystemTime| {
            UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        let (first, last) = (whole(issued.not_before), whole(issued.not_after));
        check(&chain, &key, first - second, false, "is valid only from ");
        check(&chain, &key, last + second, false, "expired on ");
        for now in [first, last] {
            Certificate::from_pem(chain.as_bytes(), key.as_bytes(), now).unwrap();
        }
    }

    #[test]
    fn dates_are_read_by_people() {
        let date = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date(1_795_225_490), "Nov 21 01:44:50 2026 +00:00");
        assert_eq!(date(u64::MAX / 2), "a day beyond the calendar");
    }
}
