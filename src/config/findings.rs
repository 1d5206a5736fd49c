//! Collects what is wrong while a configuration is read, so that a person hears of all of it at once.

use std::path::{Path, PathBuf};

use crate::config::{ConfigError, ConfigProblem, Remark};

/// Where the file does not say it, but a command did: an offset that no file has.
pub(crate) const COMMAND: usize = usize::MAX;
/// What stands for the file then.
pub(crate) const COMMANDS: &str = "what commands said";

/// Problems and warnings of one configuration file and of the files that it names.
pub(crate) struct Findings<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

impl<'a> Findings<'a> {
    /// `file` as the person named it, `text` what it holds.
    pub(crate) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Notes what must be mended. `at` is the offset in the file.
    pub(crate) fn problem(
        &mut self,
        at: usize,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        let problem = self.here(at, key.into(), message.into());
        self.problems.push(problem);
    }

    /// Notes what somebody should look at.
    pub(crate) fn warn(&mut self, at: usize, key: impl Into<String>, message: impl Into<String>) {
        let warning = self.here(at, key.into(), message.into());
        self.warnings.push(warning);
    }

    /// Notes the mistakes in another file.
    pub(crate) fn problems_in(&mut self, file: &Path, mistakes: Vec<Remark>) {
        self.problems.extend(mistakes.into_iter().map(|it| elsewhere(file, it)));
    }

    /// Notes the warnings about another file.
    pub(crate) fn warnings_in(&mut self, file: &Path, warnings: Vec<Remark>) {
        self.warnings.extend(warnings.into_iter().map(|it| elsewhere(file, it)));
    }

    /// The line, from 1, of an offset in the file.
    pub(crate) fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    /// A path of the file, which is relative to it, as the person would name it.
    pub(crate) fn path(&self, written: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(written)
    }

    /// The warnings, or all that is wrong, in the order of the file.
    pub(crate) fn verdict(self) -> Result<Vec<ConfigProblem>, ConfigError> {
        match self.problems.is_empty() {
            true => Ok(in_order(self.file, self.warnings)),
            false => Err(self.error()),
        }
    }

    /// All that is wrong, in the order of the file.
    pub(crate) fn error(self) -> ConfigError {
        ConfigError { problems: in_order(self.file, self.problems) }
    }

    fn here(&self, at: usize, key: String, message: String) -> ConfigProblem {
        let (file, line) = match at {
            COMMAND => (Path::new(COMMANDS), None),
            at => (self.file, Some(self.line(at))),
        };
        let key = (!key.is_empty()).then_some(key);
        ConfigProblem { file: file.to_path_buf(), line, column: None, key, message }
    }
}

fn in_order(file: &Path, mut problems: Vec<ConfigProblem>) -> Vec<ConfigProblem> {
    problems
        .sort_by(|a, b| (a.file != file, &a.file, a.line).cmp(&(b.file != file, &b.file, b.line)));
    problems
}

fn elsewhere(file: &Path, remark: Remark) -> ConfigProblem {
    ConfigProblem {
        file: file.to_path_buf(),
        line: Some(remark.line),
        column: Some(remark.column),
        key: None,
        message: remark.message,
    }
}
