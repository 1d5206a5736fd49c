//! A certificate chain with its key, judged before anybody sees it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
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
        let names = names(&leaf)?;
        Ok(Self { key: Arc::new(key), names, not_after: system_time(validity.not_after) })
    }
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
    Ok(alternative.iter().filter_map(domain).collect())
}
