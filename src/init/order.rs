//! What the daemon orders of an init: one file per dyno, `order.json`, which the daemon writes, the init reads,
//! and the next daemon reads again.
//!
//! The file is locked for as long as the init lives: it is the init's standard input, and the lock is on that
//! open file (flock(2)). Whoever can lock it knows that the dyno is gone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use rustix::stdio::stdin;
use serde::{Deserialize, Serialize};

use crate::init::network::Network;
use crate::init::sandbox::{Confinement, Sandbox};

/// One dyno, as it is to be started, and as it is to be known again.
///
/// Paths and texts are UTF-8, as all that comes out of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What the next daemon must know of it. The init itself does not look at it.
    pub identity: Identity,
    /// What the shell runs (`bash -c` where there is a bash, else `sh -c`).
    pub command: String,
    /// Where it runs, as the dyno itself sees it: `/app` where it is sandboxed.
    pub dir: PathBuf,
    /// Its environment: all of it, nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// The soft limit on open files that it gets back; absent: as the daemon has it.
    #[serde(default)]
    pub descriptors: Option<u64>,
    /// Whether it gets PID, mount, IPC, UTS and control group namespaces of its own.
    #[serde(default)]
    pub namespaces: bool,
    /// The network that it has of its own; goes with `namespaces`. Absent: the host's.
    #[serde(default)]
    pub network: Option<Network>,
    /// What PID 1 enters before it starts anything; goes with `namespaces`.
    #[serde(default)]
    pub sandbox: Option<Sandbox>,
    /// What the third step gives up before it becomes the command. It has the limit on open files, too.
    #[serde(default)]
    pub confinement: Option<Confinement>,
    /// The control groups that its processes are in, one per hierarchy. The init itself stays outside: it must
    /// not be frozen with the dyno, nor killed for the memory that the dyno takes.
    #[serde(default)]
    pub cgroups: Vec<ControlGroup>,
    /// Its standard input, output and errors are a terminal of this size. The daemon is the only holder of the
    /// other side: when it dies, the kernel hangs up.
    #[serde(default)]
    pub terminal: Option<Terminal>,
    /// Its standard input is a pipe that the daemon writes to; otherwise it is at its end from the beginning.
    #[serde(default)]
    pub stdin: bool,
}

/// By what a dyno is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A UUID: names the dyno's directory, and is `HEROKU_DYNO_ID` in its environment.
    pub id: String,
    /// The app.
    pub app: String,
    /// `web.1`
    pub dyno: String,
    /// Which release it runs: 7 is `v7`.
    pub release: u64,
    /// What it runs, as a digest: the same program is the same release, whoever counts.
    pub program: String,
    /// The name of its size.
    #[serde(default)]
    pub size: Option<String>,
    /// The port that it was lent.
    #[serde(default)]
    pub port: Option<u16>,
    /// When it was started, in milliseconds since 1970.
    pub started: u64,
}

/// A control group of a dyno, in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlGroup {
    /// The directory of the dyno's group.
    pub dir: PathBuf,
    /// The directory of the group that the init goes back to: the daemon's own. It is in the dyno's while it
    /// builds the sandbox, which therefore shows that group and none above it.
    pub home: PathBuf,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub cols: u16,
}

/// The order's name in the dyno's directory.
pub const ORDER_FILE: &str = "order.json";
/// The name of the socket there, on which the init waits for daemons.
pub const SOCKET_FILE: &str = "socket";

/// The directory of all dynos: each has its own below it, named by its id.
pub fn dynos_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("dynos")
}

/// An order that cannot be read, or written.
#[derive(Debug, thiserror::Error)]
#[error("the order of a dyno: {0}")]
pub struct OrderError(#[from] serde_json::Error);

impl Order {
    /// Reads what [`print`](Self::print) wrote. Fields that a later version added are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self, OrderError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Reads this process' standard input from its beginning, wherever somebody has read to. It stays open, and
    /// locked.
    pub(in crate::init) fn from_stdin() -> io::Result<Self> {
        let mut file = File::from(stdin().try_clone_to_owned()?);
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Self::parse(&bytes).map_err(io::Error::other)
    }

    /// The bytes of the file. Fails where a path is not UTF-8.
    pub fn print(&self) -> Result<Vec<u8>, OrderError> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            identity: Identity {
                id: "00000000-0000-4000-8000-000000000000".into(),
                app: "shop".into(),
                dyno: "web.1".into(),
                release: 7,
                program: "abc".into(),
                size: Some("basic".into()),
                port: Some(20_000),
                started: 1,
            },
            command: "exec \"app\"\n".into(),
            dir: "/srv/shop".into(),
            environment: [("A".to_owned(), "b\0\u{1f600}".to_owned())].into(),
            descriptors: Some(1024),
            namespaces: true,
            network: Some(Network {
                interface: "dm0ad50001".into(),
                alias: "shop web.1".into(),
                host: [10, 213, 0, 0].into(),
                dyno: [10, 213, 0, 1].into(),
                addresses: ([10, 213, 0, 0].into(), 16),
                outbound: true,
            }),
            sandbox: None,
            confinement: None,
            cgroups: vec![ControlGroup {
                dir: "/sys/fs/cgroup/dynomesh/x".into(),
                home: "/sys/fs/cgroup".into(),
            }],
            terminal: Some(Terminal { rows: 24, cols: 80 }),
            stdin: false,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let order = order();
        assert_eq!(Order::parse(&order.print().unwrap()).unwrap(), order);
    }

    #[test]
    fn what_a_later_version_added_is_passed_over_and_what_it_left_out_is_not_there() {
        let text = r#"{"identity":{"id":"i","app":"a","dyno":"web.1","release":1,"program":"p","started":0,"x":1},
            "command":"c","dir":"/","environment":{},"colour":"red"}"#;
        let order = Order::parse(text.as_bytes()).unwrap();
        assert_eq!((order.identity.port, order.terminal, order.namespaces), (None, None, false));
        assert_eq!(order.network, None);
    }

    #[test]
    fn anything_else_is_refused() {
        let error = Order::parse(b"{}").unwrap_err();
        assert!(error.to_string().starts_with("the order of a dyno: missing field"), "{error}");
    }
}
