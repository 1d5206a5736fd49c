//! A certificate that ACME obtained, judged before it is kept or served.

use std::time::SystemTime;

use x509_parser::parse_x509_certificate;

use crate::certs::acme::renewal::Validity;
use crate::certs::certificate::system_time;
use crate::certs::{Certificate, Flaw};
use crate::model::Domain;

/// A certificate for a name of ours.
#[derive(Clone, Debug)]
pub(crate) struct Obtained {
    pub(crate) certificate: Certificate,
    pub(crate) validity: Validity,
}

/// Why it is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ObtainedError {
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// It is for others.
    #[error("is not for {0}")]
    ForOthers(Box<str>),
}

impl Obtained {
    /// Judges a chain and its key in PEM as of `now`.
    pub(crate) fn judge(
        name: &str,
        chain: &str,
        key: &str,
        now: SystemTime,
    ) -> Result<Self, ObtainedError> {
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), now)?;
        if !certificate.names.contains(&Domain::Exact(name.into())) {
            return Err(ObtainedError::ForOthers(name.into()));
        }
        let (_, leaf) = parse_x509_certificate(&certificate.key.cert[0])
            .map_err(|error| Flaw::Unusable(error.to_string()))?;
        let not_before = system_time(leaf.validity().not_before);
        let validity = Validity { not_before, not_after: certificate.not_after };
        Ok(Self { certificate, validity })
    }
}
