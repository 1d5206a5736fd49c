//! Files that belong to the app's owner on the disk belong to the dyno's user in its sandbox, by an id-mapped
//! mount: nothing is copied, and nothing on the disk changes hands.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::init::sandbox::kernel;

/// Ids run from 0 to this; the one above stands for "none".
const LAST: u32 = u32::MAX - 1;

/// The lines of a `uid_map` that swaps two ids and leaves all others as they are: files of root and of others
/// are still theirs, and a map must not have two for one.
pub(in crate::init::sandbox) fn swapped(one: u32, other: u32) -> String {
    let (low, high) = (one.min(other), one.max(other));
    let mut lines = String::new();
    let mut line = |from: u32, to: u32, count: u32| {
        if count > 0 {
            lines.push_str(&format!("{from} {to} {count}\n"));
        }
    };
    line(0, 0, low);
    line(low, high, 1);
    if high > low {
        line(low + 1, low + 1, high - low - 1);
        line(high, low, 1);
    }
    line(high.saturating_add(1), high.saturating_add(1), LAST.saturating_sub(high));
    lines
}

/// Maps the owners of a mount that is nowhere yet. `proc` shows the processes of this process' own namespace.
pub(in crate::init::sandbox) fn map(
    mount: BorrowedFd<'_>,
    proc: &Path,
    users: &str,
    groups: &str,
) -> io::Result<()> {
    let namespace = kernel::with_user_namespace(|child| {
        let child = proc.join(child.as_raw_nonzero().to_string());
        fs::write(child.join("uid_map"), users)?;
        fs::write(child.join("gid_map"), groups)?;
        File::open(child.join("ns/user"))
    })?;
    kernel::map_owners(mount, namespace.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_are_swapped_and_all_others_stay() {
        let check = |one, other, expected: &str| assert_eq!(swapped(one, other), expected);
        check(0, 200_000, "0 200000 1\n1 1 199999\n200000 0 1\n200001 200001 4294767294\n");
        check(
            200_000,
            1000,
            "0 0 1000\n1000 200000 1\n1001 1001 198999\n200000 1000 1\n200001 200001 4294767294\n",
        );
        check(7, 7, "0 0 7\n7 7 1\n8 8 4294967287\n");
        check(0, 1, "0 1 1\n1 0 1\n2 2 4294967293\n");
        check(LAST, 0, "0 4294967294 1\n1 1 4294967293\n4294967294 0 1\n");
    }

    #[test]
    fn a_map_has_every_id_once() {
        for (one, other) in [(0, 200_000), (1000, 200_017), (5, 5), (LAST, 3)] {
            let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
            let total: u64 = swapped(one, other).lines().map(count).sum();
            assert_eq!(total, u64::from(LAST) + 1, "{one} {other}");
        }
    }
}
