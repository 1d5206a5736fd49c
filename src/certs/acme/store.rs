//! What is kept of ACME on the disk: the account, and a file per certificate.
//!
//! `STATE/acme/SERVER/account.json` and `STATE/acme/SERVER/NAME.pem`, where SERVER is the directory's URL with
//! all but letters, digits, dots and hyphens as `%XX`: what one server issued is never taken for another's.
//! A file has the key and then the chain, for two files could not be replaced in one step. Whoever may read
//! the directory has the keys, so that is only its owner.
//!
//! Everything here blocks on the disk.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::certs::Flaw;
use crate::certs::acme::authority::Issued;
use crate::certs::acme::obtained::{Obtained, ObtainedError};
use crate::private_file;

const ACCOUNT: &str = "account.json";

/// The files that belong to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// The account as it is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAccount {
    /// What the server was told.
    pub(crate) contact: Vec<String>,
    /// The account's URL and key, as instant-acme writes them.
    pub(crate) credentials: serde_json::Value,
}

impl Store {
    /// The files of the server with this directory URL. Touches nothing.
    pub(crate) fn of(state_dir: &Path, directory: &str) -> Self {
        let url = directory.strip_prefix("https://").unwrap_or(directory);
        let mut server = String::new();
        for byte in url.bytes() {
            match byte {
                byte if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') => {
                    server.push(byte.into());
                }
                byte => write!(server, "%{byte:02X}").expect("a String takes everything"),
            }
        }
        Self { dir: state_dir.join("acme").join(server) }
    }

    /// The certificate of a name, if there is one that can be served now. One that never can is set aside and
    /// said; one that has expired waits for its successor, one that is not valid yet for the clock.
    pub(crate) fn certificate(&self, name: &str, now: SystemTime) -> Option<Obtained> {
        let path = self.path(name);
        let pem = read(&path)?;
        match Obtained::judge(name, &pem, &pem, now) {
            Ok(obtained) => Some(obtained),
            Err(ObtainedError::Flaw(Flaw::Expired(_) | Flaw::NotYetValid(_))) => None,
            Err(flaw) => {
                set_aside(&path, flaw);
                None
            }
        }
    }

    /// Keeps a certificate in place of the one before.
    pub(crate) fn save_certificate(&self, name: &str, issued: &Issued) -> io::Result<()> {
        self.write(&format!("{name}.pem"), format!("{}{}", issued.key, issued.chain).as_bytes())
    }

    /// The account, if there is one. A file that cannot be read is set aside and said.
    pub(crate) fn account(&self) -> Option<StoredAccount> {
        let path = self.dir.join(ACCOUNT);
        let text = read(&path)?;
        serde_json::from_str(&text).inspect_err(|error| set_aside(&path, error)).ok()
    }

    /// Sets the account with this URL aside, because the server does not know it. One that was made since
    /// stays.
    pub(crate) fn set_account_aside(&self, id: &str, reason: &str) {
        if self.account().is_some_and(|account| account.credentials["id"] == id) {
            set_aside(&self.dir.join(ACCOUNT), reason);
        }
    }

    /// Keeps the account.
    pub(crate) fn save_account(&self, account: &StoredAccount) -> io::Result<()> {
        self.write(ACCOUNT, &serde_json::to_vec_pretty(account)?)
    }

    /// Makes the directory, where it is missing.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        private_file::make_dir(&self.dir).map_err(|error| at(&self.dir, error))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let written = private_file::replace(&self.dir, name, bytes);
        written.map_err(|error| at(&self.dir.join(name), error))
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn read(path: &Path) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            set_aside(path, error);
            None
        }
    }
}

/// Renames a file that is of no use, so that somebody can look at it and nothing writes over it.
fn set_aside(path: &Path, reason: impl std::fmt::Display) {
    let aside = with_suffix(path, ".broken");
    match fs::rename(path, &aside) {
        Ok(()) => {
            tracing::warn!("{}: {reason}; set aside as {}", path.display(), aside.display());
        }
        Err(error) => tracing::error!("{}: {reason}; not set aside: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::certs::acme::scripted::issue;

    const URL: &str = "https://ca.example/directory";

    struct Kept {
        dir: tempfile::TempDir,
        store: Store,
    }

    impl Kept {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { store: Store::of(dir.path(), URL), dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("acme/ca.example%2Fdirectory").join(name)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.path("")).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names = names.collect::<Vec<_>>();
            names.sort();
            names
        }

        fn certificate(&self, name: &str) -> Option<Obtained> {
            self.store.certificate(name, SystemTime::now())
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn each_server_has_a_directory_of_its_own() {
        let check = |url: &str, expected: &str| {
            assert_eq!(Store::of(Path::new("/s"), url).dir, Path::new("/s/acme").join(expected));
        };
        check(URL, "ca.example%2Fdirectory");
        check("https://[::1]:14000/a_b", "%5B%3A%3A1%5D%3A14000%2Fa%5Fb");
        check("https://x/../../etc", "x%2F..%2F..%2Fetc");
    }

    #[test]
    fn a_certificate_is_kept_for_its_owner_alone() {
        let kept = Kept::new();
        assert!(kept.certificate("shop.example").is_none());
        for days in [10, 90] {
            kept.store.save_certificate("shop.example", &issue("shop.example", days)).unwrap();
        }
        assert_eq!(kept.names(), ["shop.example.pem"]);
        assert_eq!(mode(&kept.path("shop.example.pem")), 0o600);
        for dir in ["", ".."] {
            assert_eq!(mode(&kept.path(dir)), 0o700);
        }
        let validity = kept.certificate("shop.example").unwrap().validity;
        let left = validity.not_after.duration_since(SystemTime::now()).unwrap();
        assert_eq!((left.as_secs() + 3600) / 86_400, 90);
    }

    #[test]
    fn a_crash_while_writing_leaves_what_was_there() {
        let kept = Kept::new();
        kept.store.save_certificate("shop.example", &issue("shop.example", 90)).unwrap();
        fs::write(kept.path("shop.example.pem.new"), "-----BEGIN").unwrap();
        assert!(kept.certificate("shop.example").is_some());
        kept.store.save_certificate("shop.example", &issue("shop.example", 90)).unwrap();
        assert_eq!(kept.names(), ["shop.example.pem"]);
    }

    #[test]
    fn what_cannot_be_read_is_set_aside() {
        let kept = Kept::new();
        let other = issue("shop.example", 90);
        let issued = issue("shop.example", 90);
        let mixed = Issued { key: other.key, chain: issued.chain };
        kept.store.save_certificate("mixed.example", &mixed).unwrap();
        kept.store.save_certificate("other.example", &issue("shop.example", 90)).unwrap();
        fs::write(kept.path("empty.example.pem"), "").unwrap();
        fs::write(kept.path("binary.example.pem"), [0xff, 0xfe]).unwrap();
        fs::write(kept.path("account.json"), "{").unwrap();
        for name in ["mixed.example", "other.example", "empty.example", "binary.example"] {
            assert!(kept.certificate(name).is_none(), "{name}");
        }
        assert!(kept.store.account().is_none());
        assert!(kept.names().iter().all(|name| name.ends_with(".broken")), "{:?}", kept.names());
        assert_eq!(kept.names().len(), 5);
    }

    #[test]
    fn a_certificate_that_is_of_another_time_stays() {
        let kept = Kept::new();
        kept.store.save_certificate("shop.example", &issue("shop.example", -1)).unwrap();
        assert!(kept.certificate("shop.example").is_none());
        kept.store.save_certificate("slow.example", &issue("slow.example", 90)).unwrap();
        // The clock of a machine that has just started may be years behind.
        let past = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        assert!(kept.store.certificate("slow.example", past).is_none());
        assert_eq!(kept.names(), ["shop.example.pem", "slow.example.pem"]);
    }

    #[test]
    fn an_account_comes_back_as_it_was_kept() {
        let kept = Kept::new();
        assert!(kept.store.account().is_none());
        let credentials = serde_json::json!({ "id": "https://ca.example/account/1" });
        let contact = vec!["mailto:ops@example.com".to_owned()];
        let account = StoredAccount { contact: contact.clone(), credentials: credentials.clone() };
        kept.store.save_account(&account).unwrap();
        assert_eq!(mode(&kept.path("account.json")), 0o600);
        let account = kept.store.account().unwrap();
        assert_eq!((account.contact, account.credentials), (contact, credentials));
    }
}
