//! The file → the configuration as used, or all that is wrong with it.

use std::path::{Path, PathBuf};

use crate::config::findings::Findings;
use crate::config::{Config, ConfigError, ConfigProblem};
use crate::config::{read, resolve, text_file};

/// Where the configuration is looked for, in this order.
const DEFAULT_PATHS: [&str; 2] = ["config/dynomesh.toml", "/etc/dynomesh/dynomesh.toml"];

/// The configuration file for somebody who names none: the first that is there, else the first.
pub fn default_path() -> PathBuf {
    let found = DEFAULT_PATHS.iter().find(|path| Path::new(path).exists());
    PathBuf::from(found.unwrap_or(&DEFAULT_PATHS[0]))
}

/// Reads and checks a configuration and every file that it names. The error has all that is wrong.
///
/// Blocks on the disk; `serve` calls it once, then at each SIGHUP.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |message| {
        let file = path.to_path_buf();
        ConfigError {
            problems: vec![ConfigProblem { file, line: None, column: None, key: None, message }],
        }
    };
    let text = text_file::read(path).map_err(unreadable)?;
    let written = read::read(path, &text)?;
    let mut findings = Findings::new(path, &text);
    let mut config = resolve::resolve(&mut findings, path, &written);
    config.notes.warnings = findings.verdict()?;
    Ok(config)
}
