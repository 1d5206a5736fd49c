//! The few files of /etc that are a dyno's own: its user, its group and its host's name.

use std::fs;
use std::path::Path;

use crate::init::sandbox::plan::{Sandbox, SandboxError, Step};
use crate::init::sandbox::root::Root;

/// The name of a dyno's user and group. Each has its own number.
const USER: &str = "dyno";

/// Writes them, over the host's.
pub(in crate::init::sandbox) fn write(
    root: &mut Root,
    sandbox: &Sandbox,
) -> Result<(), SandboxError> {
    let Sandbox { uid, gid, hostname, .. } = sandbox;
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let files = [
        ("passwd", with_line(&host("/etc/passwd"), &format!("{USER}:x:{uid}:{gid}::/app:/bin/sh"))),
        ("group", with_line(&host("/etc/group"), &format!("{USER}:x:{gid}:"))),
        // Java asks for the address of its own host, and stops without an answer.
        ("hosts", with_line(&host("/etc/hosts"), &format!("127.0.0.1 {hostname}"))),
        ("hostname", format!("{hostname}\n")),
    ];
    for (name, text) in files {
        let path = Path::new("/etc").join(name);
        // There must be a file to cover, and the host's /etc is not ours to write to.
        if !root.at(&path).is_file() {
            continue;
        }
        let made = Path::new("/").join(name);
        root.write(&made, &text)?;
        root.show(&root.at(&made), &path, false)?;
        fs::remove_file(root.at(&made)).step(|| format!("remove {}", made.display()))?;
    }
    Ok(())
}

/// A file with one more line, whether or not its last one has an end.
fn with_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_added_at_the_end() {
        assert_eq!(with_line("", "b"), "b\n");
        assert_eq!(with_line("a\n", "b"), "a\nb\n");
        assert_eq!(with_line("a", "b"), "a\nb\n");
    }
}
