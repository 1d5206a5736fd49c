//! Looking for what a challenge asks for: HTTP-01 (RFC 8555 §8.3) and TLS-ALPN-01 (RFC 8737).

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::book::{Challenge, Problem};
use super::{Shared, Targets};

/// Validates in the background, as servers do; the order tells what came of it.
#[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
pub(super) fn spawn(shared: Arc<Shared>, challenge: Challenge) {
    tokio::spawn(async move {
        let mut targets = shared.targets.subscribe();
        let Ok(targets) = targets.wait_for(Option::is_some).await.map(|it| *it) else { return };
        let Some(Targets { http, https }) = targets else { return };
        let outcome = match challenge.kind {
            "http-01" => look_by_http(http, &challenge).await,
            _ => look_by_tls(https, &challenge).await,
        };
        shared.book().validated(challenge.order, outcome);
    });
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, Problem> {
    let connected = TcpStream::connect(addr).await;
    connected.map_err(|error| Problem::new(400, "connection", format!("connect: {error}")))
}

fn wrong(detail: impl Into<String>) -> Problem {
    Problem::new(403, "unauthorized", detail)
}

async fn look_by_http(addr: SocketAddr, challenge: &Challenge) -> Result<(), Problem> {
    let failed = |error| Problem::new(400, "connection", format!("read: {error}"));
    let mut stream = connect(addr).await?;
    let Challenge { name, token, key_authorization, .. } = challenge;
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(wrong("that is no answer"))?;
    if !head.starts_with("HTTP/1.1 200 ") {
        let status = head.lines().next().unwrap_or_default();
        return Err(wrong(format!("the answer is {status}")));
    }
    match body.trim_ascii_end() == key_authorization {
        true => Ok(()),
        false => Err(wrong("the answer is another key authorization")),
    }
}

async fn look_by_tls(addr: SocketAddr, challenge: &Challenge) -> Result<(), Problem> {
    let algorithms = default_provider().signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_protocol_versions(&[&TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whatever(algorithms)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let name = ServerName::try_from(challenge.name.clone()).map_err(|_| wrong("no name"))?;
    let stream = connect(addr).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let mut stream =
        stream.map_err(|error| Problem::new(400, "tls", format!("handshake: {error}")))?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(b"acme-tls/1") {
        return Err(wrong("acme-tls/1 was not chosen"));
    }
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().ok_or(wrong("no certificate"))?;
    let digest = digest(&SHA256, challenge.key_authorization.as_bytes());
    look_at(certificate, &challenge.name, digest.as_ref()).map_err(wrong)?;
    // Nothing is spoken under this certificate (§4): a server that waits for a request would be heard to wait.
    match stream.read(&mut [0]).await {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => Err(wrong("there is more than a handshake")),
    }
}

/// RFC 8737 §3: self-signed, for this one name, with the digest in a critical extension.
fn look_at(certificate: &[u8], name: &str, digest: &[u8]) -> Result<(), String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|it| it.to_string())?;
    certificate.verify_signature(None).map_err(|_| "the certificate is not self-signed")?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.ok_or("the certificate has no names")?;
    if names.value.general_names != [GeneralName::DNSName(name)] {
        return Err(format!("the certificate is for {:?}", names.value.general_names));
    }
    let identifier = certificate
        .extensions()
        .iter()
        .find(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
        .ok_or("the certificate has no acmeIdentifier")?;
    if !identifier.critical {
        return Err("acmeIdentifier is not critical".into());
    }
    // An OCTET STRING of 32 bytes.
    match identifier.value == [&[4, 32], digest].concat() {
        true => Ok(()),
        false => Err("acmeIdentifier has another digest".into()),
    }
}

/// Trusts every certificate, but not without a signature by its key.
#[derive(Debug)]
struct Whatever(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Whatever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 is all that is offered")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // By the key alone: what knows certificates refuses one with a critical extension that it does not
        // know, and that is what makes them useless for anything else (RFC 8737 §3).
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
