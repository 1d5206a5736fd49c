//! Whether dynos are kept apart on this host, and what each start is given for it.
//!
//! Decided once, when the daemon starts, by trying. That the host cannot is said there, and is no reason not to
//! start unless isolation is required: then dynos are process groups of the daemon's own user. What went wrong
//! for any other reason is one: dynos of root would have the machine because its disk was full.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{AppSource, Config, IsolationWanted, NetworkWanted, limits};
use crate::init::{Confinement, Network, Sandbox, TrialError, Upper, try_sandbox};
use crate::model::{AppName, DynoName};
use crate::supervisor::network::{self, Networks, NoNetwork};
use crate::supervisor::numbers::{LentNumber, Numbers};

/// Whether and how dynos are kept apart. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Isolation {
    /// `None`: they are not.
    parts: Option<Arc<Parts>>,
}

struct Parts {
    state_dir: PathBuf,
    /// Where the state directory's file system lets it be.
    upper: Upper,
    uids: Numbers,
    /// Absent: dynos are in the host's network.
    networks: Option<Networks>,
    /// Where this daemon's own binary was when it started.
    binary: PathBuf,
    /// What a reload may change.
    view: ArcSwap<View>,
}

/// What dynos see of the host besides its system directories, and what they do not see of these.
#[derive(Debug, PartialEq, Eq)]
struct View {
    expose: Vec<PathBuf>,
    hide: Vec<PathBuf>,
}

/// What one start is given.
pub(crate) struct Isolated {
    /// For PID 1.
    pub(crate) sandbox: Sandbox,
    /// For what becomes the command.
    pub(crate) confinement: Confinement,
    /// To be kept for as long as anything of the dyno is left.
    pub(crate) uid: LentNumber,
}

/// Every user of `[dynos] uids` is some dyno's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no user is left to run it as ([dynos] uids)")]
pub(crate) struct NoUid;

/// Dynos cannot be kept apart, and are not to run otherwise.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsolationError {
    /// `[dynos] isolation` wants it, and this cannot be.
    #[error(
        "isolate dynos: {0}; [dynos] isolation = \"required\" (`dynomesh doctor` says more; \"none\" does without)"
    )]
    Required(String),
    /// It may be that the host can.
    #[error(
        "try whether this host can isolate dynos: {0}; [dynos] isolation = \"none\" runs them without, as root"
    )]
    Failed(String),
    /// Dynos are to have networks of their own, and cannot.
    #[error(
        "give dynos networks of their own: {0}; [dynos] network = \"private\" (`dynomesh doctor` says more; \"host\" does without)"
    )]
    Network(String),
}

impl Isolation {
    /// Decides, and says so. Takes some tens of milliseconds where the daemon is root.
    ///
    /// # Errors
    /// It is required and cannot be, or networks are; or whether it can is unknown, since something else went wrong.
    pub(crate) fn decide(config: &Config, binary: &Path) -> Result<Self, IsolationError> {
        let isolation = Self::decide_without_network(config, binary)?;
        if config.dynos.network == NetworkWanted::Host {
            return Ok(isolation);
        }
        let Some(parts) = isolation.parts.and_then(Arc::into_inner) else {
            let reason = "dynos are not isolated here";
            return Err(IsolationError::Network(reason.into()));
        };
        let networks = Networks::prepare(config).map_err(IsolationError::Network)?;
        let parts = Parts { networks: Some(networks), ..parts };
        Ok(Self { parts: Some(Arc::new(parts)) })
    }

    fn decide_without_network(config: &Config, binary: &Path) -> Result<Self, IsolationError> {
        const WITHOUT: &str = "dynos are processes of dynomesh's own user and see all that it sees";
        if config.dynos.isolation == IsolationWanted::None {
            tracing::info!("isolation: none, as [dynos] isolation says: {WITHOUT}");
            return Ok(Self::none());
        }
        let is_required = config.dynos.isolation == IsolationWanted::Required;
        if !rustix::process::geteuid().is_root() {
            if is_required {
                return Err(IsolationError::Required("dynomesh is not root".into()));
            }
            tracing::info!("isolation: none, since dynomesh is not root: {WITHOUT}");
            return Ok(Self::none());
        }
        let try_upper = |upper| try_sandbox(&config.state_dir, upper).map(drop);
        let upper = match try_uppers(try_upper) {
            Ok(upper) => upper,
            Err(error) if !error.is_of_the_host() => {
                return Err(IsolationError::Failed(error.to_string()));
            }
            Err(reason) if is_required => {
                return Err(IsolationError::Required(reason.to_string()));
            }
            Err(reason) => {
                tracing::warn!(
                    "isolation: none, since this host cannot ({reason}; `dynomesh doctor` says more): {WITHOUT}"
                );
                return Ok(Self::none());
            }
        };
        let uids = &config.dynos.uids;
        tracing::info!(
            "isolation: each dyno has its own files, processes and user ({}-{})",
            uids.start(),
            uids.end(),
        );
        let view = ArcSwap::from_pointee(View::of(config));
        let state_dir = config.state_dir.clone();
        let uids = Numbers::new(uids.clone());
        Ok(Self {
            parts: Some(Arc::new(Parts {
                state_dir,
                upper,
                uids,
                networks: None,
                binary: binary.to_owned(),
                view,
            })),
        })
    }

    /// Dynos are not kept apart.
    pub(crate) fn none() -> Self {
        Self { parts: None }
    }

    /// Has dynos that start from now on see what a new configuration says.
    pub(crate) fn apply(&self, config: &Config) {
        if let Some(parts) = &self.parts {
            parts.view.store(Arc::new(View::of(config)));
        }
    }

    /// What a start needs: `dir` is the dyno's own directory, `app_dir` the app's, `hostname` what the dyno
    /// takes for its host's name, and it may have so many processes. `None`: dynos are not kept apart.
    pub(crate) fn lend(
        &self,
        dir: &Path,
        app_dir: &Path,
        hostname: &str,
        processes: u64,
    ) -> Result<Option<Isolated>, NoUid> {
        let Some(parts) = &self.parts else { return Ok(None) };
        let uid = parts.uids.lend().ok_or(NoUid)?;
        let view = parts.view.load();
        let number = uid.number();
        let sandbox = Sandbox {
            dir: dir.to_owned(),
            app_dir: app_dir.to_owned(),
            upper: parts.upper_beside(app_dir),
            uid: number,
            gid: number,
            hostname: hostname.to_owned(),
            expose: view.expose.clone(),
            hide: view.hide.clone(),
            binary: Some(parts.binary.clone()),
            tmp_bytes: limits::TMP_BYTES,
            shm_bytes: limits::SHM_BYTES,
            own_network: parts.networks.is_some(),
        };
        let soft = crate::init::descriptors_before_raise().unwrap_or(limits::DYNO_OPEN_FILES);
        let confinement = Confinement {
            uid: number,
            gid: number,
            processes,
            open_files: (soft.min(limits::DYNO_OPEN_FILES), limits::DYNO_OPEN_FILES),
        };
        Ok(Some(Isolated { sandbox, confinement, uid }))
    }

    /// Takes the user of a dyno that an earlier daemon started. `None`: somebody else has it.
    pub(crate) fn adopt(&self, sandbox: &Sandbox) -> Option<LentNumber> {
        match &self.parts {
            Some(parts) => parts.uids.take(sandbox.uid),
            // No dyno of this daemon is lent any, so it is in nobody's way.
            None => Numbers::new(sandbox.uid..=sandbox.uid).take(sandbox.uid),
        }
    }

    /// A network for a dyno, and what is to be kept for as long as anything of it is left. `None`: it is the host's.
    pub(crate) fn lend_network(
        &self,
        app: &AppName,
        dyno: &DynoName,
    ) -> Result<Option<(Network, LentNumber)>, NoNetwork> {
        self.networks().map(|networks| networks.lend(app, dyno)).transpose()
    }

    /// Takes the addresses of a dyno that an earlier daemon started. `None`: somebody else has them.
    pub(crate) fn adopt_network(&self, network: &Network) -> Option<LentNumber> {
        match self.networks() {
            Some(networks) => networks.adopt(network),
            None => network::adopt_alone(network),
        }
    }

    /// Whether dynos have networks of their own.
    pub(crate) fn has_networks(&self) -> bool {
        self.networks().is_some()
    }

    /// Puts up again what the host has for dynos, should it be gone. Takes some milliseconds.
    pub(crate) fn renew_network(&self) {
        if let Some(networks) = self.networks() {
            networks.renew();
        }
    }

    /// The host's part is put up no more. Waits for a renewal that is under way.
    pub(crate) fn end_network(&self) {
        if let Some(networks) = self.networks() {
            networks.end();
        }
    }

    fn networks(&self) -> Option<&Networks> {
        self.parts.as_ref()?.networks.as_ref()
    }

    /// What a dyno inherits of the daemon's environment by this name, given what the daemon has.
    pub(crate) fn inherited(&self, name: &str, value: Option<OsString>) -> Option<OsString> {
        match (&self.parts, name) {
            (Some(_), "HOME") => Some("/app".into()),
            (Some(_), "USER") => Some("dyno".into()),
            // It names a place of the host's.
            (Some(_), "TMPDIR") => None,
            _ => value,
        }
    }
}

impl Parts {
    /// An overlay must not have its upper directory in its lower one.
    fn upper_beside(&self, app_dir: &Path) -> Upper {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if real(&self.state_dir).starts_with(real(app_dir)) {
            Upper::Memory(limits::UPPER_BYTES)
        } else {
            self.upper
        }
    }
}

/// Where what dynos write to /app can be kept: rather on the disk, where it is no dyno's memory. What went wrong there
/// this time only says nothing of the disk, and dynos would lack the memory for as long as the daemon lives.
fn try_uppers(try_upper: impl Fn(Upper) -> Result<(), TrialError>) -> Result<Upper, TrialError> {
    let Err(disk) = try_upper(Upper::Disk) else { return Ok(Upper::Disk) };
    if !disk.is_of_the_host() {
        return Err(disk);
    }
    let memory = Upper::Memory(limits::UPPER_BYTES);
    match try_upper(memory) {
        Ok(()) => {
            tracing::warn!("what dynos write to /app is kept in memory, since on the disk: {disk}");
            Ok(memory)
        }
        // The same, or what follows from it.
        Err(memory) if memory.is_of_the_host() => Err(disk),
        Err(memory) => Err(memory),
    }
}

impl View {
    fn of(config: &Config) -> Self {
        let apps = config.apps.values().filter_map(|app| match &app.source {
            AppSource::Managed(managed) => Some(managed.dir.clone()),
            AppSource::External(_) | AppSource::Blank => None,
        });
        let file = config.file.clone();
        let mut hide = vec![config.state_dir.clone(), around(&file).to_owned(), file];
        hide.extend(apps);
        Self { expose: config.dynos.expose.clone(), hide }
    }
}

/// The configuration has secrets, and there are more of them beside it; but what is beside it where it is right
/// in a system directory is the system's.
fn around(config_file: &Path) -> &Path {
    match config_file.parent() {
        Some(dir) if dir.components().count() > 2 => dir,
        _ => config_file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Part;

    #[test]
    fn what_is_beside_the_configuration_is_hidden_unless_it_is_the_systems() {
        let check = |file: &str, expected: &str| {
            assert_eq!(around(Path::new(file)), Path::new(expected), "{file}");
        };
        check("/etc/dynomesh/dynomesh.toml", "/etc/dynomesh");
        check("/etc/dynomesh.toml", "/etc/dynomesh.toml");
        check("/opt/dynomesh/config/dynomesh.toml", "/opt/dynomesh/config");
        check("/dynomesh.toml", "/dynomesh.toml");
    }

    #[test]
    fn only_what_is_of_the_host_puts_changes_into_memory() {
        let error = |errno| TrialError { part: Part::Root, reason: "mount".into(), errno };
        let (host, other) = (error(Some(1)), error(Some(28)));
        let (also_host, timeout) = (error(Some(22)), error(None));
        let kept_in_memory = Upper::Memory(limits::UPPER_BYTES);
        let check = |disk: Result<(), &TrialError>, memory: Result<(), &TrialError>, expected| {
            let results = |upper| if upper == Upper::Disk { disk } else { memory };
            let upper = try_uppers(|upper| results(upper).map_err(TrialError::clone));
            assert_eq!(upper, expected, "{disk:?}, {memory:?}");
        };
        check(Ok(()), Ok(()), Ok(Upper::Disk));
        check(Err(&host), Ok(()), Ok(kept_in_memory));
        check(Err(&other), Ok(()), Err(other.clone()));
        check(Err(&timeout), Ok(()), Err(timeout.clone()));
        check(Err(&host), Err(&also_host), Err(host.clone()));
        check(Err(&host), Err(&other), Err(other.clone()));
        check(Err(&other), Err(&host), Err(other.clone()));
    }

    fn isolated(uids: std::ops::RangeInclusive<u32>) -> Isolation {
        let view = View { expose: vec!["/root/.pyenv".into()], hide: vec!["/opt/state".into()] };
        let view = ArcSwap::from_pointee(view);
        let uids = Numbers::new(uids);
        let (state_dir, binary) = ("/srv/state".into(), "/srv/dynomesh".into());
        let networks = None;
        let parts = Parts { state_dir, upper: Upper::Disk, uids, networks, binary, view };
        Isolation { parts: Some(Arc::new(parts)) }
    }

    fn lend(isolation: &Isolation) -> Result<Option<Isolated>, NoUid> {
        isolation.lend(Path::new("/state/dynos/1"), Path::new("/srv/shop"), "host", 256)
    }

    #[test]
    fn an_app_around_the_state_directory_has_its_changes_in_memory() {
        let isolation = isolated(70_000..=70_001);
        let upper = |app_dir: &str| {
            let dir = Path::new("/srv/state/dynos/1");
            isolation.lend(dir, Path::new(app_dir), "host", 256).unwrap().unwrap().sandbox.upper
        };
        assert_eq!(upper("/srv/shop"), Upper::Disk);
        assert_eq!(upper("/srv"), Upper::Memory(limits::UPPER_BYTES));
    }

    #[test]
    fn each_start_has_a_user_of_its_own() {
        let isolation = isolated(70_000..=70_001);
        let one = lend(&isolation).unwrap().unwrap();
        let other = lend(&isolation).unwrap().unwrap();
        assert_eq!(
            (one.sandbox.uid, one.confinement.uid, one.confinement.gid),
            (70_000, 70_000, 70_000)
        );
        assert_eq!(other.sandbox.uid, 70_001);
        assert_eq!(lend(&isolation).err(), Some(NoUid));
        drop(one);
        assert_eq!(lend(&isolation).unwrap().unwrap().uid.number(), 70_000);
    }

    #[test]
    fn the_user_of_an_adopted_dyno_is_lent_to_nobody() {
        let isolation = isolated(70_000..=70_000);
        let sandbox = lend(&isolation).unwrap().unwrap().sandbox;
        let adopted = isolation.adopt(&sandbox);
        assert!(adopted.is_some() && isolation.adopt(&sandbox).is_none());
        assert_eq!(lend(&isolation).err(), Some(NoUid));
        assert!(Isolation::none().adopt(&sandbox).is_some());
    }

    #[test]
    fn the_home_of_an_isolated_dyno_is_the_app() {
        let of = |isolation: &Isolation, name| isolation.inherited(name, Some("host".into()));
        let isolation = isolated(70_000..=70_000);
        assert_eq!(of(&isolation, "HOME"), Some("/app".into()));
        assert_eq!(of(&isolation, "USER"), Some("dyno".into()));
        assert_eq!(of(&isolation, "TMPDIR"), None);
        assert_eq!(of(&isolation, "PATH"), Some("host".into()));
        let none = Isolation::none();
        assert!(["HOME", "USER", "TMPDIR"].iter().all(|name| of(&none, name).is_some()));
        assert!(lend(&none).unwrap().is_none());
    }
}
