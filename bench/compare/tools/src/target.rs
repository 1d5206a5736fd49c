//! The proxy under test, over TCP or TLS.
//!
//! TLS is the same towards all contestants: 1.3, X25519 (what OpenSSL 3.0 has no post-quantum group for is
//! asked of nobody), and the one certificate of the run.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::Loss;
use crate::options::Options;

/// The name in the certificate of the run.
const NAME: &str = "localhost";

/// Where to connect, and whether by TLS.
#[derive(Clone)]
pub struct Target {
    addr: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// `ADDRESS`, by TLS where `--certificate FILE` says what the proxy will show. Every connection makes a
    /// full handshake.
    pub fn from_options(options: &Options, addr: &str) -> Result<Self, String> {
        let addr = addr.parse().map_err(|_| format!("{addr} is no address"))?;
        let file = options.get("certificate", String::new())?;
        let tls = if file.is_empty() { None } else { Some(Arc::new(config(&file)?)) };
        Ok(Self { addr, tls })
    }

    /// The same with its own store of sessions, which its connections resume.
    pub fn resuming(&self) -> Self {
        let tls = self.tls.as_ref().map(|config| {
            let mut config = ClientConfig::clone(config);
            config.resumption = Resumption::in_memory_sessions(1);
            Arc::new(config)
        });
        Self { addr: self.addr, tls }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connects, with the TLS handshake where it has one.
    pub async fn connect(&self) -> Result<Stream, Loss> {
        let stream = TcpStream::connect(self.addr).await.map_err(|_| Loss::Refused)?;
        self.handshake(stream).await
    }

    /// The same with so small a buffer for what comes that little is under way to it.
    pub async fn connect_narrow(&self) -> Result<Stream, Loss> {
        let connect = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4096)?;
            Ok(socket.connect(self.addr))
        };
        let stream = connect().map_err(|_: io::Error| Loss::Refused)?.await;
        self.handshake(stream.map_err(|_| Loss::Refused)?).await
    }

    /// What a connection by TLS begins with; `None` where there is no TLS.
    pub fn client_hello(&self) -> Option<Vec<u8>> {
        let mut hello = Vec::new();
        let mut connection = ClientConnection::new(self.tls.clone()?, server_name())
            .expect("the name is a DNS name");
        connection.write_tls(&mut hello).expect("a Vec takes everything");
        Some(hello)
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Stream, Loss> {
        stream.set_nodelay(true).map_err(|_| Loss::Refused)?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let stream = TlsConnector::from(config.clone()).connect(server_name(), stream).await;
        Ok(Stream::Tls(Box::new(stream.map_err(|_| Loss::Handshake)?)))
    }
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("localhost is a DNS name")
}

fn config(file: &str) -> Result<ClientConfig, String> {
    let certificate = CertificateDer::from_pem_file(file);
    let certificate = certificate.map_err(|error| format!("read certificate {file}: {error}"))?;
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?;
    let verifier = Arc::new(Pinned { certificate });
    let mut config =
        config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Accepts one certificate, whoever shows it. The signature is not looked at: that would cost the client, which
/// shares its core with the dynos, as much as the server pays for the rest, and tells nothing of the server.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("this is not the certificate of the run".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A connection to the target.
pub enum Stream {
    /// Over TCP.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether its TLS handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => {
                stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
