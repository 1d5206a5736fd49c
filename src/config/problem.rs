//! What can be wrong with a configuration, and how it is said: file, line, key, and what would be right.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, or worth a warning, and where.
///
/// Prints as `config/dynomesh.toml:12: apps.shop.dir: …`; what is not known is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigProblem {
    /// The file, named as the person who wrote it would: relative where the configuration's path was.
    pub file: PathBuf,
    /// From 1.
    pub line: Option<usize>,
    /// From 1, in characters; only where the line alone would leave one searching.
    pub column: Option<usize>,
    /// `apps.shop.formation.worker`
    pub key: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}:", self.file.display());
        for number in [self.line, self.column].into_iter().flatten() {
            text.push_str(&format!("{number}:"));
        }
        if let Some(key) = &self.key {
            text.push_str(&format!(" {key}:"));
        }
        text.push_str(&format!(" {}", self.message));
        // Keys and paths are what somebody wrote; a line break among them must not make two lines of one.
        f.write_str(&text.replace(char::is_control, "\u{fffd}"))
    }
}

/// Everything that is wrong with a configuration, at least one thing. Prints one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the file, then those of the files that it names.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A mistake or a warning in a file that the configuration names, before it is known which file that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}
