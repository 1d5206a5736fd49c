//! The command line of an init's steps, which only dynomesh itself writes: what they are to do is in their
//! standard input.

use std::ffi::OsString;

/// One of the two steps, each an exec, from the daemon's spawn to the app's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `dynomesh init`: started by the daemon, PID 1 of the dyno where that has namespaces.
    Inside,
    /// `dynomesh init command PID`: becomes the command, and must not outlive its parent of that number. 0: in a
    /// namespace of its own, where the kernel sees to that.
    Command {
        /// The number of the init.
        parent: i32,
    },
}

/// The command line is none that dynomesh writes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("usage: dynomesh init (it is the daemon that runs this)")]
pub struct UsageError;

const COMMAND: &str = "command";

impl Step {
    /// Parses what follows `init` on the command line.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let args = args.into_iter().map(OsString::into_string).collect::<Result<Vec<_>, _>>();
        let args = args.map_err(|_| UsageError)?;
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Inside),
            [COMMAND, parent] => match parent.parse() {
                Ok(parent) if parent >= 0 => Ok(Self::Command { parent }),
                _ => Err(UsageError),
            },
            _ => Err(UsageError),
        }
    }

    /// The arguments after `init`, as [`parse`](Self::parse) reads them.
    pub(in crate::init) fn args(self) -> Vec<String> {
        match self {
            Self::Inside => Vec::new(),
            Self::Command { parent } => vec![COMMAND.into(), parent.to_string()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for step in [Step::Inside, Step::Command { parent: 7 }, Step::Command { parent: 0 }] {
            assert_eq!(Step::parse(step.args().into_iter().map(OsString::from)), Ok(step));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [&["x"][..], &["command"], &["command", "x"], &["command", "-1"]] {
            assert_eq!(Step::parse(bad.iter().map(OsString::from)), Err(UsageError), "{bad:?}");
        }
    }
}
