//! Config vars at rest: encrypted, so that a copy of the database is not a copy of the secrets.
//!
//! AES-256-GCM with a random nonce in front of each text. What a text belongs to is authenticated with it: one that is
//! moved to another app's row does not open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;

use crate::hexadecimal;
use crate::private_file;
use crate::random;

/// Beside the database, mode 0600.
const FILE: &str = "store.key";
const NONCE: usize = 12;

/// The key of one state directory.
pub(in crate::store) struct SealKey {
    encryption: RandomizedNonceKey,
    fingerprints: hmac::Key,
}

/// What was sealed does not open.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is none of ours.
    #[error("{}: {found} bytes, where a key has 32", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// How long it is.
        found: usize,
    },
    /// Another key, or somebody's changes.
    #[error("it was not encrypted with the key in {FILE}")]
    Key,
}

impl SealKey {
    /// The key in this directory, made where there is none.
    pub(in crate::store) fn load_or_make(dir: &Path) -> Result<Self, SealError> {
        if let Some(key) = Self::load(dir)? {
            return Ok(key);
        }
        let bytes = random::secret();
        private_file::replace(dir, FILE, &bytes)
            .map_err(|source| SealError::File { path: dir.join(FILE), source })?;
        Ok(Self::new(bytes))
    }

    /// The key in this directory, if there is one.
    pub(in crate::store) fn load(dir: &Path) -> Result<Option<Self>, SealError> {
        let path = dir.join(FILE);
        match fs::read(&path).map(<[u8; 32]>::try_from) {
            Ok(Ok(bytes)) => Ok(Some(Self::new(bytes))),
            Ok(Err(bytes)) => Err(SealError::Length { path, found: bytes.len() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SealError::File { path, source }),
        }
    }

    /// A key that is gone with this process.
    pub(in crate::store) fn passing() -> Self {
        Self::new(random::secret())
    }

    fn new(bytes: [u8; 32]) -> Self {
        // Two keys of one: what is encrypted with the first says nothing of what the second has marked.
        let root = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let derived = |purpose: &[u8]| hmac::sign(&root, purpose);
        let encryption = RandomizedNonceKey::new(&AES_256_GCM, derived(b"dynomesh seal").as_ref());
        Self {
            encryption: encryption.expect("the key has the length of the algorithm's"),
            fingerprints: hmac::Key::new(hmac::HMAC_SHA256, derived(b"dynomesh mark").as_ref()),
        }
    }

    /// Encrypts a text that belongs to `place`.
    pub(in crate::store) fn seal(&self, place: &str, text: &str) -> Vec<u8> {
        let mut sealed = text.as_bytes().to_vec();
        let nonce = self
            .encryption
            .seal_in_place_append_tag(Aad::from(place), &mut sealed)
            .expect("a text is shorter than 64 GiB");
        [&nonce.as_ref()[..], &sealed].concat()
    }

    /// The text that was sealed for `place`.
    pub(in crate::store) fn open(&self, place: &str, sealed: &[u8]) -> Result<String, SealError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or(SealError::Key)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Key)?;
        let mut sealed = sealed.to_vec();
        let opened = self.encryption.open_in_place(nonce, Aad::from(place), &mut sealed);
        let text = opened.map_err(|_| SealError::Key)?.to_vec();
        String::from_utf8(text).map_err(|_| SealError::Key)
    }

    /// A number that is the same for the same text, and tells nobody without the key anything of it.
    pub(in crate::store) fn fingerprint(&self, text: &str) -> String {
        let tag = hmac::sign(&self.fingerprints, text.as_bytes());
        hexadecimal::of(&tag.as_ref()[..16])
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_sealed_opens_at_its_place_alone() {
        let key = SealKey::passing();
        let sealed = key.seal("shop/TOKEN", "hunter2");
        assert!(!sealed.windows(7).any(|it| it == b"hunter2"));
        assert_ne!(sealed, key.seal("shop/TOKEN", "hunter2"), "a nonce is used once");
        assert_eq!(key.open("shop/TOKEN", &sealed).unwrap(), "hunter2");
        assert!(key.open("blog/TOKEN", &sealed).is_err());
        assert!(SealKey::passing().open("shop/TOKEN", &sealed).is_err());
        for end in 0..sealed.len() {
            assert!(key.open("shop/TOKEN", &sealed[..end]).is_err(), "{end} bytes of it");
        }
    }

    #[test]
    fn a_key_is_made_once_and_a_broken_one_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = SealKey::load_or_make(dir.path()).unwrap();
        let file = dir.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = SealKey::load_or_make(dir.path()).unwrap();
        assert_eq!(again.open("a", &key.seal("a", "b")).unwrap(), "b");
        assert_eq!(key.fingerprint("x"), again.fingerprint("x"));
        assert_ne!(key.fingerprint("x"), key.fingerprint("y"));
        fs::write(&file, "short").unwrap();
        let error = SealKey::load_or_make(dir.path()).err().unwrap().to_string();
        assert!(error.ends_with("/store.key: 5 bytes, where a key has 32"), "{error}");
    }
}
