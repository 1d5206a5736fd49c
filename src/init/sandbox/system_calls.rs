//! What a web app never asks the kernel, by a seccomp filter: everything else is let through.
//!
//! A dyno has no capabilities, so the kernel refuses most of this anyway. The list is for the day on which
//! that alone does not hold, because a flaw of the kernel's lies behind one of these calls.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// The error that programs are prepared for, why, and calls that are answered so whatever their arguments.
type Denied = (i32, &'static str, &'static [c_long]);

#[rustfmt::skip]
const DENIED: &[Denied] = &[
    (libc::EPERM, "a dyno's mounts are made; another root or another namespace is a way out of them",
        &[
            libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_setns,
            libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
            libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_mount_setattr,
        ]),
    (libc::EPERM, "opens files by number, past every directory that is closed",
        &[libc::SYS_open_by_handle_at]),
    (libc::EPERM, "is the machine's business: its kernel, its modules, its power, its swap, its disks",
        &[
            libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_reboot,
            libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module,
            libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_quotactl, libc::SYS_quotactl_fd,
            libc::SYS_acct, libc::SYS_syslog, libc::SYS_vhangup,
        ]),
    (libc::EPERM, "one clock for all on the machine",
        &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    (libc::EPERM, "programs for the kernel, and a long list of flaws in what checks them",
        &[libc::SYS_bpf]),
    (libc::EPERM, "sees other processes and the kernel, and has been a way to root more than once",
        &[libc::SYS_perf_event_open]),
    (libc::EPERM, "stops the kernel in the middle of a copy, which makes its races easy to win",
        &[libc::SYS_userfaultfd]),
    (libc::EPERM, "keyrings are not part of any namespace: a dyno would see those of others",
        &[libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key]),
    (libc::EPERM, "watches the files of the whole machine",
        &[libc::SYS_fanotify_init]),
    // A C library that hears of ENOSYS uses clone, whose flags a filter can read.
    (libc::ENOSYS, "has its flags in memory, where no filter sees that they ask for namespaces",
        &[libc::SYS_clone3]),
    // libuv, tokio-uring and others fall back to epoll.
    (libc::ENOSYS, "does what other calls do without asking this filter",
        &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register]),
    (libc::ENOSYS, "nobody has called these for decades",
        &[libc::SYS_lookup_dcookie, libc::SYS_nfsservctl]),
    #[cfg(target_arch = "x86_64")]
    (libc::ENOSYS, "nobody has called these for decades",
        &[libc::SYS_uselib, libc::SYS_ustat, libc::SYS_sysfs, libc::SYS__sysctl]),
    #[cfg(target_arch = "x86_64")]
    (libc::EPERM, "speaks to devices, past their drivers",
        &[libc::SYS_iopl, libc::SYS_ioperm]),
];

/// Namespaces that clone and unshare may ask for: in a user namespace of its own everybody is root, which opens
/// parts of the kernel that were written for administrators.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWCGROUP,
];

/// `CLONE_NEWTIME`: for unshare alone, since clone has these bits for the signal at the end.
const NEW_TIME: i32 = 0x80;

/// Terminals: to type for somebody else, and to paste for them.
const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// What sockets are for, in an app. Others (raw packets, the kernel's cryptography, virtual machines) have few
/// users, and many flaws.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Denies them to this thread and to all that it starts, for good.
pub(in crate::init::sandbox) fn deny() -> io::Result<()> {
    for filter in filters().map_err(io::Error::other)? {
        apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// One filter for each answer: they are all asked, and the strictest holds.
fn filters() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let denied = |errno| {
        let same = DENIED.iter().filter(move |denied| denied.0 == errno);
        same.flat_map(|(_, _, calls)| *calls).map(|call| (*call, Vec::new())).collect::<Rules>()
    };
    let mut forbidden = denied(libc::EPERM);
    let spaces = NAMESPACES.iter().map(|flag| has_flag(0, *flag)).collect::<Result<Vec<_>, _>>()?;
    forbidden.insert(libc::SYS_clone, spaces.clone());
    forbidden.insert(libc::SYS_unshare, [spaces, vec![has_flag(0, NEW_TIME)?]].concat());
    let inputs = TERMINAL_INPUT.map(|request| is(1, request));
    forbidden.insert(libc::SYS_ioctl, inputs.into_iter().collect::<Result<_, _>>()?);

    let families = FAMILIES.map(|family| is_not(0, family)).into_iter();
    let other_families = SeccompRule::new(families.collect::<Result<_, _>>()?)?;
    let sockets = [libc::SYS_socket, libc::SYS_socketpair];
    let sockets = sockets.map(|call| (call, vec![other_families.clone()])).into();

    let filters = [
        (libc::EPERM, forbidden),
        (libc::ENOSYS, denied(libc::ENOSYS)),
        (libc::EAFNOSUPPORT, sockets),
    ];
    filters.into_iter().map(|(errno, rules)| filter(errno, rules)).collect()
}

fn filter(errno: i32, rules: Rules) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(with_other_numbers(rules), SeccompAction::Allow, answer, arch)?.try_into()
}

/// On x86-64 a kernel may know each call by a second number, which differs in one bit (the x32 ABI).
fn with_other_numbers(mut rules: Rules) -> Rules {
    const X32: c_long = 0x4000_0000;
    if cfg!(target_arch = "x86_64") {
        let others = rules.iter().map(|(call, rules)| (call | X32, rules.clone()));
        let others = others.collect::<Vec<_>>();
        rules.extend(others);
    }
    rules
}

fn has_flag(argument: u8, flag: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    let flag = u64::from(flag.cast_unsigned());
    condition(argument, SeccompCmpOp::MaskedEq(flag), flag)
        .and_then(|condition| SeccompRule::new(vec![condition]))
}

fn is(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    condition(argument, SeccompCmpOp::Eq, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
}

fn is_not(argument: u8, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    condition(argument, SeccompCmpOp::Ne, u64::from(value.cast_unsigned()))
}

/// The kernel looks at the lower half of these arguments only, and so do we.
fn condition(
    argument: u8,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_programs_that_the_kernel_takes() {
        let filters = filters().unwrap();
        assert_eq!(filters.len(), 3);
        for filter in filters {
            // BPF_MAXINSNS of linux/bpf_common.h.
            assert!((10..4096).contains(&filter.len()), "{}", filter.len());
        }
    }

    #[test]
    fn no_call_is_denied_in_two_ways() {
        let mut calls = DENIED.iter().flat_map(|(_, _, calls)| *calls).collect::<Vec<_>>();
        let all = calls.len();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), all);
        for by_argument in [libc::SYS_clone, libc::SYS_unshare, libc::SYS_ioctl, libc::SYS_socket] {
            assert!(!calls.contains(&&by_argument));
        }
    }

    #[test]
    fn every_entry_has_a_reason() {
        assert!(DENIED.iter().all(|(_, reason, calls)| reason.len() > 20 && !calls.is_empty()));
    }
}
