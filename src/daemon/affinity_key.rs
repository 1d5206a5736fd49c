//! The key by which the cookies of session affinity are signed.
//!
//! A secret of its own in a file of its own: there is nothing to derive it from that is secret and outlives a
//! restart. Nothing depends on the file: without it, clients come to other dynos once after each start.

use std::fs;
use std::path::Path;

use aws_lc_rs::rand;

use crate::private_file;

/// Below the state directory.
const FILE: &str = "affinity.key";

/// The key of this state directory. Made, and written for nobody else to read, where there is none.
pub(crate) fn load_or_make(state_dir: &Path) -> [u8; 32] {
    let file = state_dir.join(FILE);
    match fs::read(&file).map(<[u8; 32]>::try_from) {
        Ok(Ok(key)) => return key,
        Ok(Err(other)) => {
            tracing::warn!("{}: {} bytes, not 32: made anew", file.display(), other.len());
        }
        Err(_) => {}
    }
    let mut key = [0; 32];
    rand::fill(&mut key).expect("the kernel gives random numbers");
    if let Err(error) = private_file::replace(state_dir, FILE, &key) {
        let file = file.display();
        tracing::warn!("{file}: {error}: cookies of session affinity will not outlive this run");
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
        let key = load_or_make(&state);
        assert_ne!(key, [0; 32]);
        assert_eq!(load_or_make(&state), key);
        let mode = fs::metadata(state.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }

    #[test]
    fn half_a_key_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"short").unwrap();
        let key = load_or_make(dir.path());
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), key);
    }

    #[test]
    fn without_a_directory_there_is_a_key_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert_ne!(load_or_make(&file), load_or_make(&file));
    }
}
