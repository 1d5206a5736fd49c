//! Which app a command is about, and how it is asked for.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::place::{File, Socket, ask};
use crate::control::{self, AppObject, Reply};
use crate::model::ListenAddr;

/// What every answer of the daemon about its dynos comes within.
const WITHIN: Duration = Duration::from_secs(10);

/// The daemon that a command asks.
#[derive(Args)]
pub(in crate::cli) struct Daemon {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    socket: Socket,
}

/// `-a`, of every command about one app.
#[derive(Args)]
pub(in crate::cli) struct App {
    /// The app [default: $HEROKU_APP, then the only one that there is]
    #[arg(short, long, value_name = "APP")]
    app: Option<String>,
}

impl Daemon {
    /// Where it answers.
    pub(in crate::cli) fn addr(&self) -> anyhow::Result<ListenAddr> {
        self.socket.of(&self.file)
    }

    /// Asks it, and reads what it answers; its refusals are errors.
    pub(in crate::cli) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> anyhow::Result<T> {
        self.tell(method, path, &Value::Null)
    }

    /// The same with a body.
    pub(in crate::cli) fn tell<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let reply = accepted(ask(&self.addr()?, method, path, body, WITHIN)??)?;
        serde_json::from_slice(&reply.body).context("read the daemon's answer")
    }
}

impl App {
    /// The app that was named.
    pub(in crate::cli) fn named(&self) -> anyhow::Result<Option<String>> {
        let named = self.app.clone().or_else(|| std::env::var("HEROKU_APP").ok());
        named.as_deref().map(name).transpose()?;
        Ok(named)
    }

    /// The app that was named, or the only one.
    pub(in crate::cli) fn name(&self, daemon: &Daemon) -> anyhow::Result<String> {
        if let Some(app) = self.named()? {
            return Ok(app);
        }
        let apps: Vec<AppObject> = daemon.ask(Method::GET, "/apps")?;
        match apps.as_slice() {
            [only] => Ok(only.name.clone()),
            [] => bail!("there is no app"),
            several => {
                let names: Vec<_> = several.iter().map(|app| app.name.as_str()).collect();
                bail!("which app? Say -a {}", names.join(" or -a "))
            }
        }
    }
}

/// What could be the name of an app, a process type or a dyno, and so part of a path.
pub(in crate::cli) fn name(text: &str) -> anyhow::Result<&str> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    match !text.is_empty() && text.bytes().all(is_of_name) {
        true => Ok(text),
        false => bail!("{text:?} is no name: expected letters, digits, dashes and dots"),
    }
}

/// The answer, where it is none of the daemon's refusals.
pub(in crate::cli) fn accepted(reply: Reply) -> anyhow::Result<Reply> {
    match reply.status {
        status if status.is_success() => Ok(reply),
        StatusCode::SWITCHING_PROTOCOLS => Ok(reply),
        _ => bail!("{}", control::message(&reply.body)),
    }
}
