//! What is shown to a server that checks a name, for as long as it does.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use crate::certs::Certs;

/// The answer to a challenge, taken back on drop.
pub(crate) enum Shown {
    /// In handshakes for this name.
    Tls(Arc<Certs>, Box<str>),
    /// At the path of this token.
    Http(Arc<Certs>, String),
}

impl Shown {
    /// Answers TLS-ALPN-01 for a name: `digest` is the SHA-256 of the key authorization.
    pub(crate) fn tls(certs: &Arc<Certs>, name: &str, digest: &[u8]) -> Result<Self, rcgen::Error> {
        let key = Arc::new(challenge_key(name, digest)?);
        certs.challenge_alpn(name, Some(key));
        Ok(Self::Tls(certs.clone(), name.into()))
    }

    /// Answers HTTP-01 for a token.
    pub(crate) fn http(certs: &Arc<Certs>, token: &str, key_authorization: &str) -> Self {
        certs.challenge_http(token, Some(key_authorization.into()));
        Self::Http(certs.clone(), token.into())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        match self {
            Self::Tls(certs, name) => certs.challenge_alpn(name, None),
            Self::Http(certs, token) => certs.challenge_http(token, None),
        }
    }
}

/// RFC 8737 §3: signed by itself, for this name alone, the digest in a critical extension.
fn challenge_key(name: &str, digest: &[u8]) -> Result<CertifiedKey, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = any_supported_type(&key).expect("rustls takes the keys that rcgen makes");
    Ok(CertifiedKey::new(vec![certificate.into()], key))
}

#[cfg(test)]
mod tests {
    use x509_parser::extensions::GeneralName;
    use x509_parser::parse_x509_certificate;

    use super::*;

    /// RFC 8737 §3, sentence by sentence.
    #[test]
    fn the_challenge_certificate_is_what_the_rfc_asks_for() {
        let digest = [7; 32];
        let key = challenge_key("shop.example", &digest).unwrap();
        assert_eq!(key.cert.len(), 1);
        let (_, certificate) = parse_x509_certificate(&key.cert[0]).unwrap();
        assert_eq!(certificate.subject(), certificate.issuer());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::DNSName("shop.example")]);
        let extensions = certificate.extensions().iter();
        let identifiers = extensions.filter(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let identifiers = identifiers.map(|it| (it.critical, it.value)).collect::<Vec<_>>();
        assert_eq!(identifiers, [(true, &[&[4, 32][..], &digest].concat()[..])]);
    }
}
