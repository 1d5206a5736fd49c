//! What every integration test stands on: the real binary, apps that misbehave, clients made of bytes.
//!
//! Nothing here sleeps to wait for a thing: it awaits the thing, bounded by [`within`].

mod acme_server; // a certificate authority
mod app; // an app process that the test starts itself
mod drains; // where logs are sent to
mod client; // a connection on which every byte is the test's own
mod http2; // a client that speaks HTTP/2
mod http2_frames; // HTTP/2 by hand, for what no client sends
mod lines; // log lines, parsed
mod load; // clients that never retry
mod mesh; // the daemon: its configuration, process and log
mod metrics; // what /metrics says
mod processes; // what dynos are to the machine
mod sockets; // WebSockets that come back
mod tls; // TLS, as clients speak it
mod uids; // users for isolated dynos

pub(crate) use acme_server::{AcmeServer, Fault, Issued, Resource};
pub(crate) use app::{App, refusing_addr};
pub(crate) use client::{Answer, Client, End, json_of, percent_encoded, request};
pub(crate) use drains::DrainServer;
pub(crate) use http2::{Http2, Http2Exchange, get, is_switched, post, read_body};
pub(crate) use http2_frames::{Frame, Frames, PREFACE, get_fields};
pub(crate) use lines::{Line, Request};
pub(crate) use load::Load;
pub(crate) use mesh::{Known, Mesh, Ran, Setup, control_groups};
pub(crate) use metrics::Metrics;
pub(crate) use processes::{directories, init_of, is_gone};
pub(crate) use sockets::{GOODBYE, HELLO, RESTART, Sockets};
pub(crate) use tls::Tls;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Far longer than anything here takes on an idle machine, so that a busy one passes too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits a thing that must come; panics with its name when it does not.
pub(crate) async fn within<F: Future>(what: &str, thing: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, thing).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Awaits a file that an app writes when it is done with something.
pub(crate) async fn file_appears(path: &Path) {
    within(&format!("{}", path.display()), async {
        while !path.exists() {
            pause().await;
        }
    })
    .await;
}

/// Awaits that a question is answered with yes.
pub(crate) async fn becomes_true<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    within(what, async {
        while !ask().await {
            pause().await;
        }
    })
    .await;
}

/// Between two looks at what announces itself in no other way. Never in place of a look.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// The app under `tests/testapp`, which cargo builds beside the tests.
pub(crate) fn testapp() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_dynomesh"));
    let path = binary.with_file_name("examples").join("testapp");
    assert!(path.exists(), "{} is missing: cargo build --example testapp", path.display());
    path
}
