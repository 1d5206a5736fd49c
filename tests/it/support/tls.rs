//! TLS, as clients speak it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::client::HOST;
use crate::support::{Client, Mesh, within};

/// A client that trusts the mesh's own CA and remembers its sessions.
pub(crate) struct Tls {
    config: ClientConfig,
}

impl Tls {
    /// One that speaks every version and says nothing of protocols.
    pub(crate) fn of(mesh: &Mesh) -> Self {
        Self::with(mesh, rustls::ALL_VERSIONS)
    }

    /// One that speaks these versions only.
    pub(crate) fn with(mesh: &Mesh, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(mesh.path("state/ca/ca.pem"));
        roots.add(root.expect("the CA's certificate")).unwrap();
        let config = ClientConfig::builder_with_protocol_versions(versions);
        Self { config: config.with_root_certificates(roots).with_no_client_auth() }
    }

    /// The same that would agree on these protocols.
    pub(crate) fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    /// Connects, and asks for the certificate of a name. None is asked for by those who say an address.
    pub(crate) async fn connect(&self, addr: SocketAddr, name: &str) -> Client {
        Client::over_tls(self.stream(addr, name).await)
    }

    /// Connects with as small a receive window as the kernel gives, for the usual host.
    pub(crate) async fn connect_small(&self, addr: SocketAddr) -> Client {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = within("a connection", socket.connect(addr)).await.expect("connect");
        Client::over_tls(self.over(stream, HOST).await.expect("a handshake"))
    }

    /// As [`connect`](Self::connect), for those who speak something of their own.
    pub(crate) async fn stream(&self, addr: SocketAddr, name: &str) -> TlsStream<TcpStream> {
        self.try_stream(addr, name).await.expect("a handshake")
    }

    /// As [`stream`](Self::stream), where the handshake may fail.
    pub(crate) async fn try_stream(
        &self,
        addr: SocketAddr,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = within("a connection", TcpStream::connect(addr)).await.expect("connect");
        stream.set_nodelay(true).unwrap();
        self.over(stream, name).await
    }

    /// As [`try_stream`](Self::try_stream), on a connection that is there already.
    pub(crate) async fn over(
        &self,
        stream: TcpStream,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_string()).expect("a name");
        // The configurations share the sessions that they remember.
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        within("a handshake", connector.connect(name, stream)).await
    }

    /// The first bytes that it would send for the usual host.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from(HOST).unwrap();
        let config = Arc::new(self.config.clone());
        let mut session = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        hello
    }
}
