//! The dynos that another daemon left behind: found by their directories, and asked who they are.
//!
//! What is done with them is the manager's business.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, Signal, pidfd_open};
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant};

use crate::config::limits;
use crate::init::{self, Hello, ORDER_FILE, Order, Request};
use crate::model::{AppName, DynoName};
use crate::private_file;
use crate::supervisor::cgroup::{self, Group};
use crate::supervisor::link::About;
use crate::supervisor::numbers::LentNumber;
use crate::supervisor::program::Streams;
use crate::supervisor::remove::remove;
use crate::supervisor::spawn::{Launcher, LauncherParts, OsProcess, Process};

/// Beside the dynos' directory: what is left of those that are gone, until it is removed.
const DEAD_DIR: &str = "dead";

/// A dyno that was there before this daemon.
pub(crate) struct Survivor<P> {
    pub(crate) process: P,
    pub(crate) app: AppName,
    pub(crate) dyno: DynoName,
    /// What it was started with.
    pub(crate) order: Order,
    /// When it came up, in milliseconds since 1970, if it has.
    pub(crate) up_since: Option<u64>,
    /// It was told to end already.
    pub(crate) is_stopping: bool,
}

/// What an earlier daemon has left.
pub(crate) struct Left<P> {
    /// Those that go on here.
    pub(crate) survivors: Vec<Survivor<P>>,
    /// The ports of those that live and are nobody's: nobody knows until when.
    pub(crate) ports: Vec<u16>,
}

/// The dynos' directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SurvivorsError {
    /// It cannot be made or opened.
    #[error("use {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its dynos are those of a daemon that lives.
    #[error("another dynomesh runs the dynos of {0} ([state] dir)")]
    Taken(PathBuf),
}

/// The right to the dynos of a state directory: one daemon's at a time.
#[derive(Debug)]
pub(crate) struct Claim {
    _dir: File,
}

/// Takes the right to a state directory's dynos. A daemon that was just killed may still be dying.
pub(crate) async fn claim(state_dir: &Path) -> Result<Claim, SurvivorsError> {
    let path = init::dynos_dir(state_dir);
    let open = || {
        private_file::make_dir(&path)?;
        File::open(&path)
    };
    let dir = match open() {
        Ok(dir) => dir,
        Err(source) => return Err(SurvivorsError::Directory { path, source }),
    };
    let give_up = Instant::now() + limits::CLAIM_WAIT;
    while flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= give_up {
            return Err(SurvivorsError::Taken(path));
        }
        time::sleep(limits::CLAIM_LOOK).await;
    }
    Ok(Claim { _dir: dir })
}

impl Launcher {
    /// Finds the dynos that live, and begins to remove what is left of those that don't. What lives and cannot be
    /// taken over is stopped where it can be, and warned of.
    pub(crate) async fn survivors(&self, _: &Claim) -> Left<OsProcess> {
        let dynos_dir = self.parts().dynos_dir.clone();
        let found = spawn_blocking(move || find(&dynos_dir)).await.unwrap_or_default();
        self.remove_dead(found.dead);
        let asked = found.living.into_iter().map(|dir| {
            let launcher = self.clone();
            self.parts().shutdown.spawn(async move {
                match launcher.ask(&dir).await {
                    Ok(survivor) => Ok(survivor),
                    Err(error) => {
                        launcher.keep_lent(&dir);
                        tracing::warn!("the dyno of {}: {error}", dir.display());
                        Err(read_order(&dir).and_then(|order| order.identity.port))
                    }
                }
            })
        });
        // All are asked at once: one that is silent holds up no other.
        let asked = asked.collect::<Vec<_>>();
        let (mut survivors, mut ports) = (Vec::new(), Vec::new());
        for answer in asked {
            match answer.await {
                Ok(Ok(survivor)) => survivors.push(survivor),
                Ok(Err(port)) => ports.extend(port),
                // A panic in it has been logged.
                Err(_) => {}
            }
        }
        Left { survivors, ports }
    }

    /// Removes what dead dynos have left, one after the other and beside all else: it may be gigabytes. Their users
    /// are lent to nobody until then. What is not done when the daemon ends is the next one's to do.
    fn remove_dead(&self, dead: Vec<PathBuf>) {
        let LauncherParts { isolation, shutdown, .. } = self.parts();
        let user = |dir: &Path| read_order(dir)?.sandbox.and_then(|it| isolation.adopt(&it));
        let dead = dead.into_iter().map(|dir| (user(&dir), dir)).collect::<Vec<_>>();
        let end = shutdown.clone();
        shutdown.spawn(async move {
            for (user, dir) in dead {
                let removed = spawn_blocking(move || remove(&dir).map_err(|error| (dir, error)));
                tokio::select! {
                    removed = removed => if let Ok(Err((dir, error))) = removed {
                        tracing::warn!("remove {}: {error}", dir.display());
                    },
                    () = end.begun() => return,
                }
                drop(user);
            }
        });
    }

    /// Has the control groups removed that no dyno has any more, and ends who is in them still. Call it when the
    /// survivors are known, and before any dyno is started.
    pub(crate) fn sweep_cgroups(&self, _: &Claim) {
        let LauncherParts { cgroups, dynos_dir, shutdown, .. } = self.parts();
        if let Some(cgroups) = cgroups {
            // A dyno that lives has its directory, also if it cannot be taken over; dead ones have none any more.
            let leftovers = cgroups.leftovers(|id| dynos_dir.join(id).exists());
            shutdown.spawn(cgroup::sweep(leftovers));
        }
    }

    async fn ask(&self, dir: &Path) -> Result<Survivor<OsProcess>, Strange> {
        let socket = connect(dir).await.map_err(Strange::Silent)?;
        // Who listens there is the init. It has not ended: its order is locked.
        let init =
            socket_peercred(&socket).and_then(|it| pidfd_open(it.pid, PidfdFlags::empty())).ok();
        let order = read_order(dir);
        let name = order.as_ref().and_then(|order| {
            Some((
                AppName::parse(&order.identity.app).ok()?,
                DynoName::parse(&order.identity.dyno)?,
            ))
        });
        let (Some(order), Some((app, dyno))) = (order.clone(), name) else {
            let group = order.and_then(|order| Group::adopt(order.cgroups));
            self.dismiss_unknown(socket, group);
            return Err(Strange::Order);
        };
        let about = About {
            app: app.clone(),
            dyno: dyno.clone(),
            streams: Streams::Log,
            dir: dir.to_owned(),
            group: Group::adopt(order.cgroups.clone()).map(Arc::new),
            namespaces: order.namespaces,
            init,
            uid: order.sandbox.as_ref().and_then(|it| self.parts().isolation.adopt(it)),
            addresses: order
                .network
                .as_ref()
                .and_then(|it| self.parts().isolation.adopt_network(it)),
            log: self.parts().log.clone(),
            shutdown: self.parts().shutdown.clone(),
        };
        let process = self.process(socket, &order, about).map_err(Strange::Silent)?;
        let hello = time::timeout(limits::HELLO_WAIT, process.link().hello()).await;
        match hello {
            Ok(Some(Hello { version: init::VERSION, up_since, stopping })) => {
                // It says that next; without its number nobody is to see it.
                let _ = time::timeout(limits::HELLO_WAIT, process.link().started()).await;
                Ok(Survivor { process, app, dyno, order, up_since, is_stopping: stopping })
            }
            Ok(Some(Hello { version, .. })) => {
                self.dismiss(process);
                Err(Strange::Version(version))
            }
            Ok(None) => Err(Strange::Gone),
            // Nobody could ever stop it, and its successor may want what it has.
            Err(_) => {
                process.kill();
                Err(Strange::Mute)
            }
        }
    }

    /// Nobody may be the user of a dyno that is left to itself, or have its addresses. One that is told to end has
    /// them until then.
    fn keep_lent(&self, dir: &Path) {
        let Some(Order { sandbox, network, .. }) = read_order(dir) else { return };
        let LauncherParts { isolation, .. } = self.parts();
        let uid = sandbox.and_then(|it| isolation.adopt(&it));
        let addresses = network.and_then(|it| isolation.adopt_network(&it));
        [uid, addresses].into_iter().flatten().for_each(LentNumber::keep);
    }

    /// Stops a dyno of which only that much is known.
    fn dismiss(&self, process: OsProcess) {
        // It may be frozen, and would hear nothing.
        process.thaw();
        process.terminate();
        self.parts().shutdown.spawn(async move {
            // When this ends, what is left of it is killed.
            if time::timeout(limits::STRANGER_EXIT, process.group_gone()).await.is_err() {
                process.kill();
            }
        });
    }

    /// Stops a dyno of which not even that is known. Whoever it is, its init understands signals in every version.
    fn dismiss_unknown(&self, init: OwnedFd, group: Option<Group>) {
        let thaw = move || group.as_ref().is_some_and(|group| group.thaw().is_ok());
        thaw();
        for signal in [Signal::CONT, Signal::TERM] {
            let _ = init::send(&init, &Request::signal(signal).print(), &[]);
        }
        self.parts().shutdown.spawn(async move {
            // One that has ended is told nothing any more; what it says meanwhile is nobody's business.
            time::sleep(limits::STRANGER_EXIT).await;
            thaw();
            let _ = init::send(&init, &Request::signal(Signal::KILL).print(), &[]);
        });
    }
}

/// Why a dyno that lives is not taken over.
#[derive(Debug, thiserror::Error)]
enum Strange {
    #[error(
        "nobody can reach its init: {0}. It is left alone, without requests, and its port and user are lent to nobody: end its processes by hand"
    )]
    Silent(io::Error),
    #[error("its init says nothing. It is killed")]
    Mute,
    #[error("it has ended meanwhile")]
    Gone,
    #[error("its order cannot be read. It is told to end")]
    Order,
    #[error(
        "its init is of another version ({0}, this one is {current}). It is told to end",
        current = init::VERSION
    )]
    Version(u8),
}

/// Directories of dynos.
#[derive(Default)]
struct Found {
    living: Vec<PathBuf>,
    /// Moved to where nobody takes them for dynos.
    dead: Vec<PathBuf>,
}

/// The directories whose dyno lives, and those that are left of others.
fn find(dynos_dir: &Path) -> Found {
    let dead_dir = dynos_dir.with_file_name(DEAD_DIR);
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    // What a daemon before this one has not come to.
    let dead = entries(&dead_dir).map(|entry| entry.path()).collect();
    let mut found = Found { living: Vec::new(), dead };
    for entry in entries(dynos_dir) {
        let dir = entry.path();
        match lives(&dir) {
            Ok(true) => found.living.push(dir),
            Ok(false) => found.dead.push(bury(&dead_dir, dir)),
            Err(error) => tracing::warn!(
                "the dyno of {}: whether it lives is not known: {error}. It is left alone",
                dir.display()
            ),
        }
    }
    found
}

/// Moves the directory of a dyno that is gone, and says where it is now.
fn bury(dead_dir: &Path, dir: PathBuf) -> PathBuf {
    let grave = dead_dir.join(dir.file_name().unwrap_or_default());
    let moved = private_file::make_dir(dead_dir).and_then(|()| fs::rename(&dir, &grave));
    match moved {
        Ok(()) => grave,
        // Then it is removed where it is.
        Err(_) => dir,
    }
}

/// Whether somebody has the order locked. A directory without one never had an init.
fn lives(dir: &Path) -> io::Result<bool> {
    let order = match File::open(dir.join(ORDER_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        order => order?,
    };
    match flock(&order, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn read_order(dir: &Path) -> Option<Order> {
    Order::parse(&fs::read(dir.join(ORDER_FILE)).ok()?).ok()
}

/// An init that has just been started listens in a moment.
async fn connect(dir: &Path) -> io::Result<OwnedFd> {
    let give_up = Instant::now() + limits::HELLO_WAIT;
    loop {
        match init::connect(dir) {
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(_) => time::sleep(limits::CLAIM_LOOK).await,
            Ok(socket) => return Ok(socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Shutdown;
    use crate::supervisor::isolation::Isolation;
    use crate::telemetry::{AppLog, Lines, Target};

    fn launcher(state_dir: &Path) -> Launcher {
        let log = Target::file(&state_dir.join("log")).unwrap();
        let log = AppLog::new(Lines::start(log).unwrap());
        let isolation = Isolation::none();
        Launcher::new(state_dir, "dynomesh".into(), isolation, None, log, Shutdown::default())
    }

    #[tokio::test]
    async fn the_dynos_of_a_state_directory_are_one_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let claimed = claim(dir.path()).await.unwrap();
        let error = claim(dir.path()).await.unwrap_err();
        assert!(error.to_string().starts_with("another dynomesh runs the dynos of "), "{error}");
        drop(claimed);
        claim(dir.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_dyno_whose_order_nobody_holds_is_gone_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let launcher = launcher(dir.path());
        let claimed = claim(dir.path()).await.unwrap();
        let (held, gone) = (dir.path().join("dynos/held"), dir.path().join("dynos/gone"));
        let never = dir.path().join("dynos/never");
        for dyno in [&held, &gone, &never] {
            fs::create_dir(dyno).unwrap();
        }
        fs::write(gone.join(ORDER_FILE), "{}").unwrap();
        fs::write(held.join(ORDER_FILE), "{}").unwrap();
        let order = File::open(held.join(ORDER_FILE)).unwrap();
        flock(&order, FlockOperation::NonBlockingLockExclusive).unwrap();
        let found = find(&dir.path().join("dynos"));
        assert_eq!(found.living, std::slice::from_ref(&held));
        assert!(!gone.exists() && !never.exists() && held.exists());
        let dead_dir = dir.path().join("dead");
        assert_eq!(fs::read_dir(&dead_dir).unwrap().count(), 2);
        drop(order);
        assert!(launcher.survivors(&claimed).await.survivors.is_empty());
        assert!(!held.exists());
        time::timeout(std::time::Duration::from_secs(20), launcher.parts().shutdown.finished())
            .await
            .expect("what they left is removed");
        assert_eq!(fs::read_dir(&dead_dir).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_dyno_whose_order_cannot_be_opened_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dynos = dir.path().join("dynos");
        fs::create_dir_all(dynos.join("unknown")).unwrap();
        // Not even root can open a link to itself.
        std::os::unix::fs::symlink(ORDER_FILE, dynos.join("unknown").join(ORDER_FILE)).unwrap();
        let found = find(&dynos);
        assert_eq!((found.living, found.dead), (vec![], vec![]));
        assert!(dynos.join("unknown").exists());
    }

    /// An init of another version: what it says first, and what it is asked, is the same in all of them.
    #[tokio::test]
    async fn a_dyno_of_another_version_goes_on_and_is_told_to_end() {
        let order = r#"{"identity":{"id":"i","app":"shop","dyno":"web.1","release":1,"program":"p",
            "port":29000,"started":0},"command":"c","dir":"/","environment":{}}"#;
        // It may be frozen, and would hear nothing.
        assert_eq!(told(order).await, [Signal::CONT, Signal::TERM].map(Request::signal));
    }

    #[tokio::test]
    async fn a_dyno_of_which_nothing_is_known_goes_on_and_is_told_to_end() {
        assert_eq!(told("{}").await, [Signal::CONT, Signal::TERM].map(Request::signal));
    }

    /// What the init of a dyno with this order is told, one of another version.
    async fn told(order: &str) -> Vec<Request> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        const OTHER_VERSION: u8 = init::VERSION + 1;
        let dir = tempfile::tempdir().unwrap();
        let launcher = launcher(dir.path());
        let claim = claim(dir.path()).await.unwrap();
        let dyno = dir.path().join("dynos/strange");
        fs::create_dir(&dyno).unwrap();
        fs::write(dyno.join(ORDER_FILE), order).unwrap();
        let order = File::open(dyno.join(ORDER_FILE)).unwrap();
        flock(&order, FlockOperation::NonBlockingLockExclusive).unwrap();
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(dyno.join(init::SOCKET_FILE)).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        let strange = spawn_blocking(move || {
            let daemon = rustix::net::accept(&listener).unwrap();
            init::send(&daemon, &[1, OTHER_VERSION, 1, 2, 3], &[]).unwrap();
            let told = || Request::parse(&init::receive(&daemon).unwrap().bytes).unwrap();
            vec![told(), told()]
        });
        let left = launcher.survivors(&claim).await;
        assert!(left.survivors.is_empty());
        assert_eq!(left.ports, read_order(&dyno).and_then(|order| order.identity.port).as_slice());
        strange.await.unwrap()
    }
}
