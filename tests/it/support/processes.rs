//! What dynos are to the machine: directories and processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// The directories of the dynos of a daemon whose configuration is in this one.
pub(crate) fn directories(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(dir.join("state/dynos")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The process that has this dyno's order open.
pub(crate) fn init_of(directory: &Path) -> Pid {
    let order = directory.join("order.json");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_init =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|it| it == order);
    Pid::from_raw(pids.find(is_init).expect("an init that has the order open")).unwrap()
}

/// Whether a process is gone, or a zombie: nobody's process any more, whose reaper may be busy.
pub(crate) fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('Z'))
}
