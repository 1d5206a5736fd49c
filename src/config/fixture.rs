//! Configurations for tests, each in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::{Config, ConfigError, load};

/// A directory with a configuration and the files that it names; gone when dropped.
pub(crate) struct Fixture {
    dir: TempDir,
}

impl Fixture {
    /// Writes `dynomesh.toml` and the files beside it.
    pub(crate) fn new(config: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files.iter().chain([&("dynomesh.toml", config)]) {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        load(&self.path("dynomesh.toml"))
    }

    #[track_caller]
    pub(crate) fn loaded(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A text with the directory's own path taken out.
    pub(crate) fn relative(&self, text: &str) -> String {
        let dir: &Path = self.dir.path();
        text.replace(&format!("{}/", dir.display()), "")
    }
}
