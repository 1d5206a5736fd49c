//! What keeps a dyno from being made.

use std::io;

use crate::init::sandbox::SandboxError;

/// The exit code of what is there and cannot be run, as shells have it.
pub(in crate::init) const CANNOT_RUN: u8 = 126;
/// The exit code of what is not there.
pub(in crate::init) const NOT_FOUND: u8 = 127;

/// A step failed, and with it the dyno.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct Failure {
    step: String,
    source: io::Error,
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let (step, source) = error.into_parts();
        Self { step, source }
    }
}

impl Failure {
    /// Names the step, to be read as "failed to".
    pub(in crate::init) fn new(step: impl Into<String>, source: io::Error) -> Self {
        Self { step: step.into(), source }
    }

    /// The exit code of whoever gives up because of it.
    pub(in crate::init) fn exit_code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }
    }
}

/// Names the step that an error ended.
pub(in crate::init) trait During<T> {
    fn during(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|source| Failure::new(step, source.into()))
    }
}
