//! Process groups: a dyno's processes, as far as they stayed together.

use std::fs;
use std::io;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};
use tokio::time;

use crate::config::limits;

/// Sends a signal to every process of the group.
pub(crate) fn signal(group: Pid, signal: Signal) {
    // It fails only where no process is left, which is as good.
    let _ = kill_process_group(group, signal);
}

/// Returns once no process of the group lives. Its leader must be reaped.
///
/// The kernel tells nobody of the end of processes that are not its children, so this looks, less and less
/// often. Only a stop waits here, and only where the leader left others behind.
pub(crate) async fn gone(group: Pid) {
    let mut wait = limits::GROUP_LOOK_FIRST;
    loop {
        // Where we are PID 1, orphans are our children, and ours to reap.
        while let Ok(Some(_)) =
            waitid(WaitId::Pgid(Some(group)), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        {
        }
        if test_kill_process_group(group).is_err() || !lives(group).unwrap_or(true) {
            return;
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(limits::GROUP_LOOK_MAX);
    }
}

/// Whether a process of the group runs still: those that only wait for some init to reap them do not count.
fn lives(group: Pid) -> io::Result<bool> {
    for process in fs::read_dir("/proc")? {
        // Whatever cannot be read is no process, or has just gone.
        let Ok(stat) = fs::read_to_string(process?.path().join("stat")) else { continue };
        if let Some((state, of_group)) = state_and_group(&stat)
            && of_group == group.as_raw_nonzero().get()
            && !matches!(state, "Z" | "X")
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Of `PID (NAME) STATE PPID PGRP …`, where the name may hold anything (proc_pid_stat(5)).
fn state_and_group(stat: &str) -> Option<(&str, i32)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    Some((state, fields.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        assert_eq!(state_and_group("7 (sh) S 1 42 42 0 -1"), Some(("S", 42)));
        assert_eq!(state_and_group("7 (a) Z 9 9) Z 1 42 42"), Some(("Z", 42)));
        assert_eq!(state_and_group("7 (sh"), None);
    }

    #[test]
    fn our_own_group_lives_and_an_empty_one_does_not() {
        assert!(lives(rustix::process::getpgrp()).unwrap());
        // Beyond the largest number that Linux gives.
        assert!(!lives(Pid::from_raw(1 << 23).unwrap()).unwrap());
    }
}
