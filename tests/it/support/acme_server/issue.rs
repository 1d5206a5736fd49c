//! The authority's keys, and the certificates that it signs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

pub(super) struct Issuer {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// What an issued certificate is like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Issued {
    /// For the key and the name that were asked for, for so long from now.
    Right(Duration),
    /// For a key of the server's own.
    ForAnotherKey,
    /// For another name.
    ForAnotherName,
    /// No certificate at all.
    Nonsense,
}

/// The key of a signing request.
struct Requested<'a>(&'a [u8]);

impl Default for Issued {
    fn default() -> Self {
        Self::Right(Duration::from_secs(90 * 24 * 60 * 60))
    }
}

impl PublicKeyData for Requested<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Issuer {
    pub(super) fn new() -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages =
                vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            params.distinguished_name.push(DnType::CommonName, name);
            (params, KeyPair::generate().unwrap())
        };
        let (params, key) = authority("Root of a test");
        let root = CertifiedIssuer::self_signed(params, key).unwrap();
        let (params, key) = authority("Intermediate of a test");
        let intermediate = CertifiedIssuer::signed_by(params, key, &root).unwrap();
        Self { root, intermediate }
    }

    pub(super) fn root(&self) -> String {
        self.root.pem()
    }

    /// For the server itself.
    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.root).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate.into()], key).unwrap())
    }

    /// Signs a certificate for the request, which must be for this name alone (RFC 8555 §7.4).
    pub(super) fn issue(&self, csr: &[u8], name: &str, issued: Issued) -> Result<String, String> {
        let (_, csr) = X509CertificationRequest::from_der(csr).map_err(|it| it.to_string())?;
        csr.verify_signature().map_err(|_| "the request is not signed by its key")?;
        let names = csr.requested_extensions().into_iter().flatten().find_map(|it| match it {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        if names.is_none_or(|names| *names != [GeneralName::DNSName(name)]) {
            return Err(format!("the request is for {names:?}, not for {name}"));
        }
        let subject = csr.certification_request_info.subject.iter_common_name().next();
        if let Some(other) = subject.filter(|it| it.as_str().ok() != Some(name)) {
            return Err(format!("the common name is {other:?}"));
        }
        let key = &csr.certification_request_info.subject_pki.subject_public_key.data;
        let (name, lifetime) = match issued {
            Issued::Right(lifetime) => (name, lifetime),
            Issued::ForAnotherName => ("another.example", Duration::from_secs(3600)),
            Issued::ForAnotherKey => (name, Duration::from_secs(3600)),
            Issued::Nonsense => return Ok("no certificate".into()),
        };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = SystemTime::now().into();
        params.not_after = (SystemTime::now() + lifetime).into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = match issued {
            Issued::ForAnotherKey => {
                params.signed_by(&KeyPair::generate().unwrap(), &self.intermediate)
            }
            _ => params.signed_by(&Requested(key), &self.intermediate),
        };
        Ok(certificate.unwrap().pem() + &self.intermediate.pem())
    }
}
