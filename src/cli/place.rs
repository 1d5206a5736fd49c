//! Which file a command is about, and which socket the daemon answers on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use http::Method;

use crate::config::{self, Config, Source};
use crate::control::{self, ClientError, Reply};
use crate::model::ListenAddr;
use crate::store::Store;

/// `--config`, of every command that reads the file.
#[derive(Args)]
pub(in crate::cli) struct File {
    /// The configuration [default: config/dynomesh.toml, then /etc/dynomesh/dynomesh.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl File {
    pub(in crate::cli) fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(config::default_path)
    }

    /// The configuration, as `serve` would have it: together with what commands said.
    pub(in crate::cli) fn load(&self) -> anyhow::Result<Config> {
        let source = Source::read(&self.path())?;
        let stated = Store::peek(&source.state_dir()?)?;
        Ok(source.resolve(&stated)?)
    }
}

/// `--socket`, of every command that asks the daemon.
#[derive(Args)]
pub(in crate::cli) struct Socket {
    /// The daemon's control socket [default: $DYNOMESH_SOCKET, then what the configuration says]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Socket {
    /// The socket that was named, else the configuration's. Reads the file only if it must: the daemon can
    /// be asked while its file is being edited.
    pub(in crate::cli) fn of(&self, file: &File) -> anyhow::Result<ListenAddr> {
        match self.named() {
            Some(path) => Ok(ListenAddr::Unix(path)),
            None => Ok(ListenAddr::Unix(file.load()?.admin.socket)),
        }
    }

    /// The socket that was named, else this one.
    pub(in crate::cli) fn or(&self, configured: PathBuf) -> ListenAddr {
        ListenAddr::Unix(self.named().unwrap_or(configured))
    }

    fn named(&self) -> Option<PathBuf> {
        self.socket.clone().or_else(|| std::env::var_os("DYNOMESH_SOCKET").map(PathBuf::from))
    }
}

/// Asks the daemon, and waits for its answer.
pub(in crate::cli) fn ask(
    addr: &ListenAddr,
    method: Method,
    path: &str,
    body: Bytes,
    within: Duration,
) -> anyhow::Result<Result<Reply, ClientError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = control::send(addr, method, path, body, within);
    Ok(runtime.context("start a runtime")?.block_on(asked))
}
