//! Servers that others run: how they are reached, whom of them to believe, and one HTTP exchange with them.
//!
//! Of all of the daemon's parts that speak to one (certificates, drains) each says by itself when to try again.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime, pem};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::limits;

/// Makes connections, and knows which certificates to trust. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dialer {
    tls: TlsConnector,
}

/// Why the roots to trust could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The file cannot be read.
    #[error("read {} ({key}): {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// By which key it was named.
        key: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// The file has nothing to trust.
    #[error("{} ({key}) has no certificate that can be trusted", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// By which key it was named.
        key: &'static str,
    },
    /// Neither the system nor the file has any.
    #[error(
        "the system has no certificates to trust (Debian: ca-certificates), and there is no {0}"
    )]
    None(&'static str),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The host is no name.
    #[error("{0}: {1}")]
    Host(String, InvalidDnsNameError),
    /// No address of the server accepts.
    #[error("connect to {0}: {1}")]
    Connect(String, io::Error),
    /// The handshake; above all a certificate that is not trusted.
    #[error("connect to {0}: {1}")]
    Tls(String, io::Error),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The exchange broke off.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The answer's body broke off or is too long.
    #[error("{0}")]
    Body(Box<dyn StdError + Send + Sync>),
}

impl Dialer {
    /// Trusts what the system trusts, and the certificates of a file beside it; `key` is what the file is named by.
    /// Reads files: not for a runtime that has other things to do.
    pub(crate) fn new(ca_file: Option<&Path>, key: &'static str) -> Result<Self, RootsError> {
        let mut roots = RootCertStore::empty();
        // Files of the system that cannot be read are missed only if there are no others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let (added, _) = roots.add_parsable_certificates(read_pem(path, key)?);
            if added == 0 {
                return Err(RootsError::Empty { path: path.to_owned(), key });
            }
        }
        if roots.is_empty() {
            return Err(RootsError::None(key));
        }
        Ok(Self { tls: TlsConnector::from(Arc::new(trusting(roots))) })
    }

    /// Trusts nobody.
    #[cfg(test)]
    pub(crate) fn distrustful() -> Self {
        Self { tls: TlsConnector::from(Arc::new(trusting(RootCertStore::empty()))) }
    }

    /// A connection with TLS; the handshake is bounded by its caller.
    pub(crate) async fn tls(
        &self,
        host: &str,
        port: u16,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let named = format!("{host}:{port}");
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| DialError::Host(named.clone(), error))?;
        let stream = dial(host, port).await?;
        let tls = self.tls.connect(name, stream).await;
        tls.map_err(|error| DialError::Tls(named, error))
    }
}

/// Whether what the system trusts leads to a chain, leaf first, for this name. Reads files.
pub(crate) fn is_trusted(chain: &[CertificateDer<'static>], name: &str) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let name = ServerName::try_from(name);
    // Without any roots there is no verifier.
    let (Some((leaf, rest)), Ok(verifier), Ok(name)) = (chain.split_first(), verifier, name) else {
        return false;
    };
    verifier.verify_server_cert(leaf, rest, &name, &[], UnixTime::now()).is_ok()
}

/// A connection without TLS, to the first of the host's addresses that accepts.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let failed = |error| DialError::Connect(format!("{host}:{port}"), error);
    let addrs = lookup_host((host, port)).await.map_err(failed)?;
    connect_any(addrs).await.map_err(failed)
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn read_pem(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let failed = |source| RootsError::File { path: path.to_owned(), key, source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

/// One address after the other: the first may be one of a family that leads nowhere from here.
async fn connect_any(addrs: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in addrs {
        match timeout(limits::OUTSIDE_CONNECT, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// An HTTP/1.1 connection, one request at a time. It is driven by whoever asks: between two requests it rests.
pub(crate) struct Http<B: Body> {
    sender: http1::SendRequest<B>,
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

impl<B> Http<B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// On a connection over which nothing went yet.
    pub(crate) async fn on<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Box::pin(connection) })
    }

    /// Sends a request, and reads the answer with its whole body, of so many bytes at most. After an error the
    /// connection is of no use.
    pub(crate) async fn ask(
        &mut self,
        request: Request<B>,
        body_max: usize,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let Self { sender, connection } = self;
        let answer = async {
            sender.ready().await?;
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, body_max).collect().await;
            Ok(Response::from_parts(parts, body.map_err(ExchangeError::Body)?.to_bytes()))
        };
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The connection has ended; what it had read is with the answer, or an error is.
            _ = connection => answer.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.pem");
        let check = |expected: &str| {
            let error = Dialer::new(Some(&path), "[acme] ca_file").err().unwrap().to_string();
            assert!(error.contains("root.pem ([acme] ca_file)"), "{error}");
            assert!(error.contains(expected), "{error}");
        };
        check("No such file");
        std::fs::write(&path, "nothing").unwrap();
        check("has no certificate that can be trusted");
    }
}
