//! Secrets of the daemon's own: the keys by which it signs what it hands out and wants back.
//!
//! Each is in a file of its own: there is nothing to derive them from that is secret and outlives a restart. Nothing
//! depends on the files: without them, what was signed by an earlier daemon is not recognized, once after each start.

use std::fs;
use std::path::Path;

use crate::private_file;
use crate::random;

/// A key below the state directory.
pub(crate) struct Key {
    file: &'static str,
    /// What will not outlive this run without it.
    signs: &'static str,
}

/// Signs the cookies of session affinity.
pub(crate) const AFFINITY: Key = Key { file: "affinity.key", signs: "cookies of session affinity" };
/// Signs log sessions.
pub(crate) const LOG_SESSIONS: Key = Key { file: "log-sessions.key", signs: "log sessions" };

/// The key of this state directory. Made, and written for nobody else to read, where there is none.
pub(crate) fn load_or_make(state_dir: &Path, Key { file: name, signs }: &Key) -> [u8; 32] {
    let file = state_dir.join(name);
    match fs::read(&file).map(<[u8; 32]>::try_from) {
        Ok(Ok(key)) => return key,
        Ok(Err(other)) => {
            tracing::warn!("{}: {} bytes, not 32: made anew", file.display(), other.len());
        }
        Err(_) => {}
    }
    let key = random::secret();
    if let Err(error) = private_file::replace(state_dir, name, &key) {
        let file = file.display();
        tracing::warn!("{file}: {error}: {signs} will not outlive this run");
    }
    key
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let key = load_or_make(&state, &AFFINITY);
        assert_ne!(key, [0; 32]);
        assert_eq!(load_or_make(&state, &AFFINITY), key);
        let mode = fs::metadata(state.join(AFFINITY.file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }

    #[test]
    fn half_a_key_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(AFFINITY.file), b"short").unwrap();
        let key = load_or_make(dir.path(), &AFFINITY);
        assert_eq!(fs::read(dir.path().join(AFFINITY.file)).unwrap(), key);
    }

    #[test]
    fn without_a_directory_there_is_a_key_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert_ne!(load_or_make(&file, &AFFINITY), load_or_make(&file, &AFFINITY));
    }
}
