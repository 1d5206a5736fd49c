//! pingora-proxy doing the same work as the other contestants.
//!
//! `compare-pingora LISTEN ACCESS_LOG DYNO…`: two random dynos, the less busy of them takes the request;
//! forwarded fields, a request id, one line per request to a file through a buffer.
//! One thread, no work stealing: the cheapest way pingora runs on one core.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{env, io, process, thread};

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Buffered lines are written when this many bytes are there, or after [`FLUSH`].
const BUFFER: usize = 64 * 1024;
const FLUSH: Duration = Duration::from_millis(100);

type AccessLog = Arc<Mutex<BufWriter<File>>>;

struct Dyno {
    addr: SocketAddr,
    in_flight: AtomicUsize,
}

struct Mesh {
    dynos: Vec<Dyno>,
    log: AccessLog,
}

/// What is remembered of one request.
struct Exchange {
    since: Instant,
    id: String,
    dyno: Option<usize>,
}

impl Mesh {
    fn pick(&self) -> usize {
        let first = fastrand::usize(..self.dynos.len());
        let second = fastrand::usize(..self.dynos.len());
        let busy = |dyno: usize| self.dynos[dyno].in_flight.load(Ordering::Relaxed);
        if busy(second) < busy(first) { second } else { first }
    }

    fn give_back(&self, exchange: &mut Exchange) -> Option<usize> {
        let dyno = exchange.dyno.take()?;
        self.dynos[dyno].in_flight.fetch_sub(1, Ordering::Relaxed);
        Some(dyno)
    }
}

#[async_trait]
impl ProxyHttp for Mesh {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        let id = fastrand::u128(..);
        Exchange { since: Instant::now(), id: format!("{id:032x}"), dyno: None }
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        exchange: &mut Exchange,
    ) -> Result<Box<HttpPeer>> {
        self.give_back(exchange);
        let dyno = self.pick();
        self.dynos[dyno].in_flight.fetch_add(1, Ordering::Relaxed);
        exchange.dyno = Some(dyno);
        Ok(Box::new(HttpPeer::new(self.dynos[dyno].addr, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|it| it.as_inet()) {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", "http")?;
        request.insert_header("X-Request-Id", &exchange.id)?;
        request.insert_header("Via", "1.1 pingora")
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        _: &mut Exchange,
    ) -> Result<()> {
        response.insert_header("Via", "1.1 pingora")
    }

    /// A refused connect goes to another dyno, as with the other contestants.
    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        _: &mut Exchange,
        mut error: Box<pingora_core::Error>,
    ) -> Box<pingora_core::Error> {
        error.set_retry(true);
        error
    }

    async fn logging(
        &self,
        session: &mut Session,
        _: Option<&pingora_core::Error>,
        exchange: &mut Exchange,
    ) {
        let dyno = self.give_back(exchange);
        let request = session.req_header();
        let status = session.response_written().map_or(0, |it| it.status.as_u16());
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not end the run: the harness looks at the log's size.
        let _ = writeln!(
            log,
            "{}.{:06} router: at=info method={} path=\"{}\" host={} request_id={} dyno=web.{} service={}ms status={status} bytes={} protocol=http1.1",
            at.as_secs(),
            at.subsec_micros(),
            request.method,
            request.uri,
            request.headers.get("host").and_then(|it| it.to_str().ok()).unwrap_or(""),
            exchange.id,
            dyno.map_or(0, |it| it + 1),
            exchange.since.elapsed().as_millis(),
            session.body_bytes_sent(),
        );
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, access_log, dynos @ ..] = arguments.as_slice() else { usage() };
    if dynos.is_empty() {
        usage();
    }
    let dynos = dynos.iter().map(|it| it.parse().unwrap_or_else(|_| usage())).collect();
    if let Err(error) = serve(listen, Path::new(access_log), dynos) {
        eprintln!("open {access_log}: {error}");
        process::exit(1);
    }
}

fn usage() -> ! {
    eprintln!("usage: compare-pingora LISTEN ACCESS_LOG DYNO…");
    process::exit(64);
}

fn serve(listen: &str, access_log: &Path, dynos: Vec<SocketAddr>) -> io::Result<()> {
    let log = Arc::new(Mutex::new(BufWriter::with_capacity(BUFFER, File::create(access_log)?)));
    let flushed = log.clone();
    thread::spawn(move || {
        loop {
            thread::sleep(FLUSH);
            let _ = flushed.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    });
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 10_000,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let dynos =
        dynos.into_iter().map(|addr| Dyno { addr, in_flight: AtomicUsize::new(0) }).collect();
    let mut service = http_proxy_service(&server.configuration, Mesh { dynos, log });
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}
