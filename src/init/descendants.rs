//! Everyone in a dyno at once: how a signal reaches processes that nobody keeps a list of.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, kill_process_group, set_child_subreaper,
};

/// How far an init reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::init) enum Reach {
    /// It is PID 1 of a namespace: everyone in there, at one moment.
    Namespace,
    /// It takes in the orphans of those that it started, so that everyone who descends from it stays below it.
    /// Whoever forks while a signal goes round is met by the next one. Processes that others started for the
    /// dyno (cron, a container's daemon) are not below it.
    Descendants,
}

impl Reach {
    /// This process takes in orphans from here on. `namespaces`: it was started as PID 1 of one.
    pub(in crate::init) fn establish(namespaces: bool) -> std::io::Result<Self> {
        // Both must be so before a signal to "everyone" may be sent: outside it would reach the whole machine.
        if namespaces && getpid() == Pid::INIT && getppid().is_none() {
            return Ok(Self::Namespace);
        }
        if namespaces {
            return Err(std::io::Error::other("not the first process of its namespace"));
        }
        set_child_subreaper(Some(getpid()))?;
        Ok(Self::Descendants)
    }

    /// Sends a signal to every process of the dyno, this one excepted.
    pub(in crate::init) fn signal(self, signal: Signal) {
        // A signal fails where its process is gone already, which is as good.
        match self {
            Self::Namespace => {
                // kill(2): -1 is everyone in the caller's namespace but the caller.
                let _ = kill_process_group(Pid::INIT, signal);
            }
            Self::Descendants => signal_below(getpid(), signal),
        }
    }
}

/// By groups, so that one that forks at this moment takes its child along. A group never reaches beyond the
/// dyno: its members are of one session, and each session of the dyno was begun in it.
fn signal_below(init: Pid, signal: Signal) {
    let below = below(init.as_raw_nonzero().get(), &processes());
    let mut groups = BTreeSet::new();
    for process in below {
        // A step of ours that has not begun its own session is in the init's group.
        if process.group == init.as_raw_nonzero().get() || process.group <= 1 {
            if let Some(pid) = Pid::from_raw(process.pid) {
                let _ = kill_process(pid, signal);
            }
        } else if groups.insert(process.group)
            && let Some(group) = Pid::from_raw(process.group)
        {
            let _ = kill_process_group(group, signal);
        }
    }
}

/// A process of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    // Whatever cannot be read is no process, or has just gone.
    let stats = entries.flatten().filter_map(|entry| fs::read(entry.path().join("stat")).ok());
    stats.filter_map(|stat| parse(&String::from_utf8_lossy(&stat))).collect()
}

/// Of `PID (NAME) STATE PPID PGRP …`, where the name may hold anything (proc_pid_stat(5)).
fn parse(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(1);
    let mut number = || fields.next()?.parse().ok();
    Some(Process { pid: pid.parse().ok()?, parent: number()?, group: number()? })
}

/// Those that descend from `ancestor`, in any order.
fn below(ancestor: i32, processes: &[Process]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut ancestors = vec![ancestor];
    while let Some(parent) = ancestors.pop() {
        for child in processes.iter().filter(|process| process.parent == parent) {
            // Read one after another, the lines may disagree: a number is followed once.
            if found.iter().all(|process| process.pid != child.pid) && child.pid != ancestor {
                found.push(*child);
                ancestors.push(child.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let parsed = |pid, parent, group| Some(Process { pid, parent, group });
        assert_eq!(parse("7 (sh) S 1 42 42 0 -1"), parsed(7, 1, 42));
        assert_eq!(parse("7 (a) Z 9 9) Z 1 42 42"), parsed(7, 1, 42));
        assert_eq!(parse("7 (sh"), None);
    }

    #[test]
    fn descendants_are_found_whatever_their_order() {
        let process = |pid, parent| Process { pid, parent, group: pid };
        let all = [process(9, 5), process(2, 1), process(5, 3), process(3, 1), process(4, 2)];
        let below = |ancestor| {
            let mut pids = below(ancestor, &all).iter().map(|it| it.pid).collect::<Vec<_>>();
            pids.sort_unstable();
            pids
        };
        assert_eq!(below(3), [5, 9]);
        assert_eq!(below(1), [2, 3, 4, 5, 9]);
        assert_eq!(below(9), [0; 0]);
    }

    #[test]
    fn lines_that_disagree_end_the_search_all_the_same() {
        let circle =
            [(1, 2), (2, 1), (3, 2)].map(|(pid, parent)| Process { pid, parent, group: 1 });
        assert_eq!(below(1, &circle).len(), 2);
    }
}
