//! How the daemon and its init understand each other: `[--cgroup DIR]… [--parent PID] [--descriptors N] -- COMMAND`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What `dynomesh init` is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// The daemon: when it dies, the dyno does.
    pub parent: Option<i32>,
    /// The soft limit on open files that the dyno gets.
    pub descriptors: Option<u64>,
    /// The control groups that the dyno is in, one per hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// What the shell runs.
    pub command: OsString,
}

/// The command line is none that the daemon writes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "usage: dynomesh init [--cgroup DIR]… [--parent PID] [--descriptors N] -- COMMAND (it is the daemon that runs this)"
)]
pub struct UsageError;

impl Init {
    /// Parses what follows `init` on the command line.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut args = args.into_iter();
        let mut init =
            Self { parent: None, descriptors: None, cgroups: Vec::new(), command: OsString::new() };
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--parent") => init.parent = Some(number(args.next())?),
                Some("--cgroup") => init.cgroups.push(args.next().ok_or(UsageError)?.into()),
                Some("--descriptors") => init.descriptors = Some(number(args.next())?),
                Some("--") => {
                    init.command = args.next().ok_or(UsageError)?;
                    return if args.next().is_none() { Ok(init) } else { Err(UsageError) };
                }
                _ => return Err(UsageError),
            }
        }
        Err(UsageError)
    }

    /// The first of the arguments: the control groups that the dyno is to be in.
    pub fn cgroups<'a>(dirs: impl Iterator<Item = &'a Path>) -> Vec<OsString> {
        dirs.flat_map(|dir| ["--cgroup".into(), dir.into()]).collect()
    }

    /// The arguments before the command, as [`parse`](Self::parse) reads them.
    pub fn options(parent: u32, descriptors: Option<u64>) -> Vec<OsString> {
        let mut options = vec!["--parent".into(), parent.to_string().into()];
        if let Some(descriptors) = descriptors {
            options.extend(["--descriptors".into(), descriptors.to_string().into()]);
        }
        options.push("--".into());
        options
    }
}

fn number<T: std::str::FromStr>(arg: Option<OsString>) -> Result<T, UsageError> {
    arg.as_deref().and_then(OsStr::to_str).and_then(|text| text.parse().ok()).ok_or(UsageError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Init, UsageError> {
        Init::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn what_the_daemon_writes_is_read_back() {
        for descriptors in [None, Some(1024)] {
            let mut args = Init::cgroups([Path::new("/a"), Path::new("/b")].into_iter());
            args.extend(Init::options(7, descriptors));
            args.push("echo -- --parent".into());
            let expected = Init {
                parent: Some(7),
                descriptors,
                cgroups: vec!["/a".into(), "/b".into()],
                command: "echo -- --parent".into(),
            };
            assert_eq!(Init::parse(args), Ok(expected));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            &[][..],
            &["x"],
            &["--"],
            &["--", "a", "b"],
            &["--parent", "x", "--", "a"],
            &["--parent"],
        ] {
            assert_eq!(parse(bad), Err(UsageError), "{bad:?}");
        }
    }
}
