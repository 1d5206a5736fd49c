//! What the heroku CLI needs to talk to this daemon, and what keeps its token from anybody else.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use http::Method;
use serde_json::Value;

use crate::cli::app::Daemon;
use crate::cli::token;
use crate::control::Listening;
use crate::private_file;

/// The token that is made for it: its id and its text.
const TOKEN: &str = "heroku-cli.token";
/// The authorities that it trusts, where there are others besides the local CA.
const BUNDLE: &str = "heroku-cli.pem";
/// What `token:create` puts in front of every token: what begins otherwise is somebody else's key.
const OURS: &str = "dynomesh-";
/// Variables that would send it elsewhere, or have it believe anybody.
const UNWANTED: [&str; 4] =
    ["HEROKU_ORGANIZATION", "HEROKU_TEAM", "HEROKU_HEADERS", "NODE_TLS_REJECT_UNAUTHORIZED"];

/// Its environment, as far as it differs from ours.
pub(in crate::cli) struct Environment {
    /// `https://localhost:5000`
    pub(in crate::cli) host: String,
    /// The file with the authorities that it trusts.
    pub(in crate::cli) trusted: String,
    /// Variables, and their values.
    pub(in crate::cli) set: Vec<(&'static str, String)>,
    /// Variables that must not be there.
    pub(in crate::cli) unset: [&'static str; 4],
}

impl Environment {
    /// Asks the daemon for it. Makes a token where none is kept or at hand.
    pub(in crate::cli) fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        let listening: Listening = daemon.ask(Method::GET, "/listening")?;
        let addr = listening.api.context(
            "the daemon has no [admin] api, so the heroku CLI has nobody to ask: say api = \"127.0.0.1:5000\" there, and restart it",
        )?;
        let host = format!("https://{}", local(addr)?);
        let key = key(daemon, &listening.state_dir)?;
        let trusted = trusted(&listening.state_dir, &listening.ca)?;
        let set = vec![
            ("HEROKU_HOST", host.clone()),
            ("HEROKU_API_KEY", key),
            // Beside each look at the account it asks there, with the token: heroku.com by default.
            ("HEROKU_PARTICLEBOARD_URL", host.clone()),
            ("NODE_EXTRA_CA_CERTS", trusted.clone()),
            ("NO_PROXY", direct(env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).ok())),
            // Telemetry takes the token along; the others look for newer versions.
            ("DISABLE_TELEMETRY", "true".into()),
            ("HEROKU_SKIP_NEW_VERSION_CHECK", "1".into()),
            ("HEROKU_DISABLE_AUTOUPDATE", "1".into()),
        ];
        Ok(Self { host, trusted, set, unset: UNWANTED })
    }
}

/// How this machine calls the listener. With another host than these two the CLI goes to heroku.com, token and all.
fn local(addr: SocketAddr) -> anyhow::Result<String> {
    let port = addr.port();
    Ok(match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST => {
            format!("127.0.0.1:{port}")
        }
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_loopback() => format!("localhost:{port}"),
        ip => bail!(
            "the heroku CLI takes 127.0.0.1 and localhost for hosts of its own, and {ip} for none: let [admin] api be one of these, or 0.0.0.0"
        ),
    })
}

/// The token that is at hand, else the one that is kept, else a new one.
fn key(daemon: &Daemon, state_dir: &Path) -> anyhow::Result<String> {
    if let Some(key) = env::var("HEROKU_API_KEY").ok().filter(|key| key.starts_with(OURS)) {
        return Ok(key);
    }
    let kept = fs::read_to_string(state_dir.join(TOKEN)).unwrap_or_default();
    if let Some((id, text)) = kept.trim_end().split_once(' ') {
        // It may have been revoked since.
        let tokens: Vec<Value> = daemon.ask(Method::GET, token::PATH)?;
        if tokens.iter().any(|token| token["id"] == id) {
            return Ok(text.to_owned());
        }
    }
    let (id, text) = token::make(daemon, "admin", "dynomesh heroku")?;
    let line = format!("{id} {text}\n");
    private_file::replace(state_dir, TOKEN, line.as_bytes())
        .with_context(|| format!("keep a token in {}", state_dir.join(TOKEN).display()))?;
    Ok(text)
}

/// A file with the local CA and with whom our environment trusts already: there can be one file only.
fn trusted(state_dir: &Path, ca: &Path) -> anyhow::Result<String> {
    let before = env::var_os("NODE_EXTRA_CA_CERTS").map(PathBuf::from);
    let bundle = state_dir.join(BUNDLE);
    let text = |path: &Path| path.display().to_string();
    // What cannot be read, Node passes over, too.
    let before = before.filter(|it| it != ca && *it != bundle);
    let Some(others) = before.and_then(|it| fs::read_to_string(it).ok()) else {
        return Ok(text(ca));
    };
    let own = fs::read_to_string(ca).with_context(|| format!("read {}", ca.display()))?;
    private_file::replace(state_dir, BUNDLE, format!("{own}\n{others}\n").as_bytes())
        .with_context(|| format!("write {}", bundle.display()))?;
    Ok(text(&bundle))
}

/// Whom to ask without a proxy: it would get to see every request, or could not pass it on.
fn direct(before: Option<String>) -> String {
    let own = ["localhost", "127.0.0.1"];
    let before = before.unwrap_or_default();
    let others = before.split(',').map(str::trim).filter(|it| !it.is_empty() && !own.contains(it));
    own.into_iter().chain(others).collect::<Vec<_>>().join(",")
}

/// Where a program is that is called by its name.
pub(in crate::cli) fn find(program: &str, path: Option<OsString>) -> Option<PathBuf> {
    env::split_paths(&path?).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cli_knows_two_hosts_of_its_own() {
        let check = |addr: &str, expected: Option<&str>| {
            assert_eq!(local(addr.parse().unwrap()).ok().as_deref(), expected, "{addr}");
        };
        check("127.0.0.1:5000", Some("127.0.0.1:5000"));
        check("0.0.0.0:5000", Some("127.0.0.1:5000"));
        check("[::1]:5000", Some("localhost:5000"));
        check("[::]:5000", Some("localhost:5000"));
        check("127.0.0.2:5000", None);
        check("10.0.0.1:5000", None);
    }

    #[test]
    fn the_daemon_is_asked_without_a_proxy() {
        assert_eq!(direct(None), "localhost,127.0.0.1");
        assert_eq!(direct(Some("a.test, localhost,".into())), "localhost,127.0.0.1,a.test");
    }

    #[test]
    fn a_program_is_found_where_the_path_has_it_first() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = env::join_paths(dirs.iter().map(|dir| dir.path())).unwrap();
        assert_eq!(find("heroku", Some(path.clone())), None);
        for dir in dirs.iter().rev() {
            let file = dir.path().join("heroku");
            fs::write(&file, "").unwrap();
            assert_eq!(find("heroku", Some(path.clone())), Some(file));
        }
        assert_eq!(find("heroku", None), None);
    }
}
