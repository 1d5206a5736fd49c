//! For tests: a directory with a configuration and its certificates, and clients that speak TLS in memory.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm,
};
use rustls::client::ClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, Error as TlsError, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use tempfile::TempDir;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::certs::{Certs, load};
use crate::config::{self, Config};

pub(in crate::certs) const DAY: Duration = Duration::from_secs(86_400);

/// A directory, and an authority that is not ours, as the people who write `[[certs]]` have one.
pub(in crate::certs) struct Fixture {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Fixture {
    pub(in crate::certs) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "their CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), issuer }
    }

    pub(in crate::certs) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(in crate::certs) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A text with the directory's own path taken out.
    pub(in crate::certs) fn relative(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }

    /// Issues a certificate and writes `NAME.pem` and `NAME.key`.
    pub(in crate::certs) fn write_pair(&self, name: &str, issued: &Issued<'_>) {
        let (certificate, key) = self.issue(issued);
        self.write(&format!("{name}.pem"), certificate);
        self.write(&format!("{name}.key"), key);
    }

    /// The configuration of this text.
    #[track_caller]
    pub(in crate::certs) fn config(&self, text: &str) -> Config {
        self.write("dynomesh.toml", text);
        config::load(&self.path("dynomesh.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What serves by the configuration of this text.
    #[track_caller]
    pub(in crate::certs) fn certs(&self, text: &str) -> Arc<Certs> {
        let config = self.config(text);
        let loaded = load(&config).unwrap_or_else(|error| panic!("{error}"));
        Certs::open(&config.state_dir, loaded).unwrap()
    }

    /// A certificate of their CA and its key, in PEM.
    pub(in crate::certs) fn issue(&self, issued: &Issued<'_>) -> (String, String) {
        let names: Vec<String> = issued.names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = issued.not_before.into();
        params.not_after = issued.not_after.into();
        let key = KeyPair::generate_for(issued.algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A client of today, which trusts our CA and theirs.
    pub(in crate::certs) fn client(&self) -> Client {
        self.client_with(default_provider(), &[&TLS13, &TLS12])
    }

    /// A client of these abilities.
    pub(in crate::certs) fn client_with(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        let ours = CertificateDer::from_pem_file(self.path("state/ca/ca.pem")).unwrap();
        roots.add(ours).unwrap();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(versions).unwrap();
        Client(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// What a certificate is issued for.
pub(in crate::certs) struct Issued<'a> {
    pub(in crate::certs) names: &'a [&'a str],
    pub(in crate::certs) algorithm: &'static SignatureAlgorithm,
    pub(in crate::certs) not_before: SystemTime,
    pub(in crate::certs) not_after: SystemTime,
}

impl<'a> Issued<'a> {
    /// For these names, with an ECDSA key, valid for 90 days.
    pub(in crate::certs) fn to(names: &'a [&'a str]) -> Self {
        let now = SystemTime::now();
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        Self { names, algorithm, not_before: now - DAY, not_after: now + 90 * DAY }
    }
}

/// A client, with what it remembers of earlier sessions.
#[derive(Clone)]
pub(in crate::certs) struct Client(pub(in crate::certs) ClientConfig);

/// What a client met.
#[derive(Debug)]
pub(in crate::certs) struct Met {
    /// Of the certificate.
    pub(in crate::certs) names: Vec<String>,
    /// Of the certificate's issuer.
    pub(in crate::certs) issuer: String,
    pub(in crate::certs) version: ProtocolVersion,
    pub(in crate::certs) protocol: Option<String>,
    pub(in crate::certs) resumed: bool,
}

impl Client {
    /// The same, with these protocols in its hello.
    pub(in crate::certs) fn offering(&self, protocols: &[&[u8]]) -> Self {
        let mut config = self.0.clone();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        Self(config)
    }

    /// The same, without a name in its hello.
    pub(in crate::certs) fn nameless(&self) -> Self {
        let mut config = self.0.clone();
        config.enable_sni = false;
        Self(config)
    }

    /// Completes a handshake as a client that wants this name (or address), or says why not.
    pub(in crate::certs) fn meet(&self, certs: &Certs, name: &str) -> Result<Met, TlsError> {
        self.meet_with(certs.server_config(), name)
    }

    /// As [`meet`](Self::meet), with whoever speaks TLS like this.
    pub(in crate::certs) fn meet_with(
        &self,
        config: Arc<ServerConfig>,
        name: &str,
    ) -> Result<Met, TlsError> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(self.0.clone()), name)?;
        let mut server = ServerConnection::new(config)?;
        converse(&mut client, &mut server)?;
        let chain = client.peer_certificates().unwrap();
        let (_, leaf) = parse_x509_certificate(&chain[0]).unwrap();
        let alternative = leaf.subject_alternative_name().unwrap().unwrap();
        let names = alternative.value.general_names.iter().map(|name| match name {
            GeneralName::DNSName(name) => name.to_string(),
            GeneralName::IPAddress(bytes) => address(bytes),
            name => panic!("{name}"),
        });
        Ok(Met {
            names: names.collect(),
            issuer: leaf.issuer().iter_common_name().next().unwrap().as_str().unwrap().to_owned(),
            version: client.protocol_version().unwrap(),
            protocol: server.alpn_protocol().map(|it| String::from_utf8(it.to_vec()).unwrap()),
            resumed: server.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }
}

fn address(bytes: &[u8]) -> String {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => IpAddr::from(bytes).to_string(),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
    }
}

/// Carries bytes both ways until neither side has more to say.
fn converse(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), TlsError> {
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &*bytes).unwrap();
        let server_said = server.process_new_packets().map(drop);
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &*bytes).unwrap();
        client.process_new_packets()?;
        server_said?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}
