//! The local CA: made once in the state directory, signs a certificate for each name of the mesh.
//!
//! Invariant: what is in its directory is used or refused, never replaced: somebody trusts it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;

use crate::certs::certificate::system_time;
use crate::config::limits;
use crate::hexadecimal;
use crate::private_file;

/// The directory below the state directory, and what is in it.
const DIR: &str = "ca";
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
/// Characters of a common name (RFC 5280, appendix A.1: ub-common-name).
const COMMON_NAME_MAX: usize = 64;

/// The local CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
    pem: String,
    not_after: SystemTime,
}

/// Why there is no local CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its directory cannot be written.
    #[error("make a local CA in {}: {source}", dir.display())]
    Make {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of it is there and cannot be read.
    #[error("read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of it holds something else.
    #[error(
        "{}: {flaw}; put back what was there, or remove {} to have another CA made, which clients must then be told to trust",
        file.display(), dir.display()
    )]
    Broken {
        /// The file.
        file: PathBuf,
        /// What is removed to begin anew.
        dir: PathBuf,
        /// What is wrong with it.
        flaw: &'static str,
    },
}

/// A certificate that the CA signed.
#[derive(Debug)]
pub(in crate::certs) struct Signed {
    pub(in crate::certs) key: Arc<CertifiedKey>,
    pub(in crate::certs) not_after: SystemTime,
}

impl Ca {
    /// Opens the CA of a state directory, and makes it if there is none.
    pub fn open(state_dir: &Path) -> Result<Self, CaError> {
        let dir = state_dir.join(DIR);
        if !dir.join(CERTIFICATE).exists() && !dir.join(KEY).exists() {
            make(state_dir, &dir).map_err(|source| CaError::Make { dir: dir.clone(), source })?;
        }
        Self::read(&dir)
    }

    fn read(dir: &Path) -> Result<Self, CaError> {
        let text = |name: &str| {
            let file = dir.join(name);
            fs::read_to_string(&file).map_err(|source| CaError::Read { file, source })
        };
        let broken = |name: &str, flaw| {
            let (file, dir) = (dir.join(name), dir.to_owned());
            CaError::Broken { file, dir, flaw }
        };
        let pem = text(CERTIFICATE)?;
        let key = KeyPair::from_pem(&text(KEY)?)
            .map_err(|_| broken(KEY, "is not a private key in PEM"))?;
        let unreadable = || broken(CERTIFICATE, "is not a certificate in PEM");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unreadable())?;
        let (_, parsed) = parse_x509_certificate(&der).map_err(|_| unreadable())?;
        if !parsed.is_ca() {
            return Err(broken(CERTIFICATE, "is a certificate, but not one of a CA"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(broken(KEY, "is not the key of the certificate beside it"));
        }
        let not_after = system_time(parsed.validity().not_after);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| unreadable())?;
        Ok(Self { issuer, file: dir.join(CERTIFICATE), pem, not_after })
    }

    /// Where the certificate of a state directory's CA is.
    pub fn file_in(state_dir: &Path) -> PathBuf {
        state_dir.join(DIR).join(CERTIFICATE)
    }

    /// Its certificate, which clients are told to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Where its certificate is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// When nothing that it signed is valid any more.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a certificate for a server of these names, with a key of its own.
    pub(in crate::certs) fn sign(
        &self,
        names: Vec<SanType>,
        now: SystemTime,
    ) -> Result<Signed, rcgen::Error> {
        let not_before = now - limits::CLOCK_SKEW;
        let not_after = not_before + limits::LOCAL_VALIDITY;
        let mut params = CertificateParams::default();
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.subject_alt_names = names;
        params.distinguished_name = common_name("dynomesh");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Its own, for the serial number is made from the key, and browsers refuse two certificates of a CA
        // with one number.
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialized_der()));
        let key = any_ecdsa_type(&der).expect("rcgen's keys are P-256 unless told otherwise");
        let key = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key));
        Ok(Signed { key, not_after })
    }
}

/// Makes a CA. Its directory appears as a whole, so that two who begin at once end up with one and the same,
/// and one who is killed leaves nothing that looks like a CA.
fn make(state_dir: &Path, dir: &Path) -> io::Result<()> {
    let (certificate, key) = generate(&host_name()).map_err(io::Error::other)?;
    private_file::make_dir(state_dir)?;
    // Two containers that share a volume may have one process id; no two keys are the same.
    let point = &key.public_key_raw()[1..9];
    let draft = hexadecimal::of(point);
    let draft = state_dir.join(format!("{DIR}.{draft}"));
    DirBuilder::new().mode(0o700).create(&draft)?;
    write(&draft.join(CERTIFICATE), 0o644, &certificate.pem())?;
    write(&draft.join(KEY), 0o600, &key.serialize_pem())?;
    File::open(&draft)?.sync_all()?;
    match fs::rename(&draft, dir).map_err(|error| (error.kind(), error)) {
        Ok(()) => File::open(state_dir)?.sync_all(),
        // Somebody else was faster; theirs is read next. (The second is XFS's word for the first.)
        Err((io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists, _)) => {
            fs::remove_dir_all(&draft)
        }
        Err((_, error)) => Err(error),
    }
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A new CA's certificate and key.
fn generate(host: &str) -> Result<(Certificate, KeyPair), rcgen::Error> {
    let not_before = SystemTime::now() - limits::CLOCK_SKEW;
    let mut params = CertificateParams::default();
    params.not_before = not_before.into();
    params.not_after = (not_before + limits::CA_VALIDITY).into();
    // The name under which people find it in their list of authorities.
    params.distinguished_name = common_name(&format!("dynomesh local CA on {host}"));
    // It signs servers' certificates and no other CA.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?, key))
}

fn common_name(name: &str) -> DistinguishedName {
    let name: String = name.chars().take(COMMON_NAME_MAX).collect();
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use super::*;

    #[test]
    fn it_is_made_once_and_only_its_owner_reads_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let first = Ca::open(&state).unwrap();
        let mode = |path: &str| state.join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(""), mode("ca"), mode("ca/ca.pem"), mode("ca/ca.key")),
            (0o700, 0o700, 0o644, 0o600)
        );
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "a draft is left");
        assert_eq!(fs::read_to_string(first.file()).unwrap(), first.pem());
        assert_eq!(Ca::open(&state).unwrap().pem(), first.pem());
        let years =
            first.not_after().duration_since(SystemTime::now()).unwrap().as_secs() / 86_400 / 365;
        assert_eq!(years, 9);
        let der = CertificateDer::from_pem_slice(first.pem().as_bytes()).unwrap();
        let (_, parsed) = parse_x509_certificate(&der).unwrap();
        assert!(parsed.subject().to_string().contains(&host_name()), "{}", parsed.subject());
        assert!(parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
    }

    #[test]
    fn those_who_make_it_at_once_have_one_and_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Ca::open(dir.path()).unwrap().pem().to_owned();
        let pems = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(pems.iter().all(|pem| *pem == pems[0]));
    }

    #[test]
    fn what_is_broken_is_refused_and_left_as_it_is() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Ca::open(dir.path()).unwrap();
        Ca::open(other.path()).unwrap();
        let at = |name: &str| dir.path().join("ca").join(name);
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        let (certificate, key) = (read(CERTIFICATE), read(KEY));
        let check = |name: &str, text: Option<&str>, expected: &str| {
            match text {
                Some(text) => fs::write(at(name), text).unwrap(),
                None => fs::remove_file(at(name)).unwrap(),
            }
            let error = Ca::open(dir.path()).err().unwrap().to_string();
            let error = error.replace(&format!("{}/", dir.path().display()), "");
            assert!(error.starts_with(expected), "{error:?} does not begin with {expected:?}");
            assert_eq!(fs::read_to_string(at(name)).ok().as_deref(), text, "{name} was changed");
            fs::write(at(CERTIFICATE), &certificate).unwrap();
            fs::write(at(KEY), &key).unwrap();
        };
        check(KEY, None, "read ca/ca.key: ");
        check(CERTIFICATE, None, "read ca/ca.pem: ");
        check(
            KEY,
            Some(""),
            "ca/ca.key: is not a private key in PEM; put back what was there, or remove ",
        );
        check(CERTIFICATE, Some("-"), "ca/ca.pem: is not a certificate in PEM; ");
        let other = |name: &str| fs::read_to_string(other.path().join("ca").join(name)).unwrap();
        check(KEY, Some(&other(KEY)), "ca/ca.key: is not the key of the certificate beside it; ");
        check(
            CERTIFICATE,
            Some(&other(CERTIFICATE)),
            "ca/ca.key: is not the key of the certificate beside it; ",
        );
        let key_pair = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default().self_signed(&key_pair).unwrap().pem();
        check(CERTIFICATE, Some(&leaf), "ca/ca.pem: is a certificate, but not one of a CA; ");
    }
}
