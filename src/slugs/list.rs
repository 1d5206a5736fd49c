//! What is in a slug, entry by entry, and the name that follows from it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::config::limits;
use crate::hexadecimal;

/// Bytes of one read of a file.
const READ: usize = 64 * 1024;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::slugs) enum Entry {
    Dir,
    File {
        executable: bool,
        size: u64,
        sha256: String,
    },
    /// A symbolic link, and where it leads.
    Link(String),
}

/// The entries by their paths, which have no `.` and no `..` and begin with no `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::slugs) struct List(pub(in crate::slugs) BTreeMap<String, Entry>);

/// A slug is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// Something else stands in place of an entry, or nothing.
    #[error(
        "Error R17 (Checksum error) -> {path} of slug {slug} is not what was deployed. Expected: {expected} Actual: {actual}"
    )]
    Entry {
        /// The slug's name.
        slug: String,
        /// Which entry.
        path: String,
        /// What its list says.
        expected: String,
        /// What is there.
        actual: String,
    },
    /// The list itself.
    #[error(
        "Error R17 (Checksum error) -> the list of slug {slug} is not what was deployed. Expected: SHA256:{slug} Actual: SHA256:{actual}"
    )]
    List {
        /// The slug's name.
        slug: String,
        /// Of what is there.
        actual: String,
    },
    /// It is not there.
    #[error(
        "slug {slug} is no longer kept: what none of the last {} releases ran is removed. Deploy it again",
        limits::RELEASES_KEPT
    )]
    Gone {
        /// The slug's name.
        slug: String,
    },
    /// It cannot be read.
    #[error("slug {slug}: {}: {source}", path.display())]
    Unreadable {
        /// The slug's name.
        slug: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl List {
    /// One line of JSON for each entry, in the order of their paths.
    pub(in crate::slugs) fn text(&self) -> String {
        let line = |(path, entry): (&String, &Entry)| {
            serde_json::to_string(&(path, entry)).expect("texts and numbers are JSON") + "\n"
        };
        self.0.iter().map(line).collect()
    }

    /// The name of a slug with these entries: 64 hexadecimal digits.
    pub(in crate::slugs) fn name(&self) -> String {
        hexadecimal::of(digest(&SHA256, self.text().as_bytes()).as_ref())
    }

    /// The bytes of all files.
    pub(in crate::slugs) fn size(&self) -> u64 {
        let size = |entry: &Entry| match entry {
            Entry::File { size, .. } => *size,
            Entry::Dir | Entry::Link(_) => 0,
        };
        self.0.values().map(size).sum()
    }

    /// Reads back what [`text`](Self::text) wrote for the slug of this name.
    pub(in crate::slugs) fn read(slug: &str, file: &Path) -> Result<Self, Damage> {
        let unreadable =
            |source| Damage::Unreadable { slug: slug.into(), path: file.to_owned(), source };
        let text = fs::read(file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Damage::Gone { slug: slug.into() },
            _ => unreadable(source),
        })?;
        let actual = hexadecimal::of(digest(&SHA256, &text).as_ref());
        if actual != slug {
            return Err(Damage::List { slug: slug.into(), actual });
        }
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let entries = lines.map(serde_json::from_slice::<(String, Entry)>);
        let entries = entries.collect::<Result<_, _>>();
        entries.map(Self).map_err(|error| unreadable(io::Error::other(error)))
    }

    /// Compares it with what is in `dir`. What is there besides is nobody's concern: dynos that are not isolated write
    /// into their own directory.
    pub(in crate::slugs) fn check(&self, slug: &str, dir: &Path) -> Result<(), Damage> {
        for (path, expected) in &self.0 {
            let place = dir.join(path);
            let actual = match found(&place) {
                Ok(actual) => Some(actual),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => {
                    return Err(Damage::Unreadable { slug: slug.into(), path: place, source });
                }
            };
            if actual.as_ref() != Some(expected) {
                let words = |entry: &Entry| match entry {
                    Entry::Dir => "a directory".to_owned(),
                    Entry::File { sha256, .. } => format!("SHA256:{sha256}"),
                    Entry::Link(to) => format!("a link to {to}"),
                };
                let actual = actual.as_ref().map_or("nothing".into(), words);
                let (slug, path) = (slug.to_owned(), path.clone());
                return Err(Damage::Entry { slug, path, expected: words(expected), actual });
            }
        }
        Ok(())
    }
}

/// What is at a place, not following a link.
fn found(place: &Path) -> io::Result<Entry> {
    let known = fs::symlink_metadata(place)?;
    if known.is_dir() {
        return Ok(Entry::Dir);
    }
    if known.is_symlink() {
        return Ok(Entry::Link(fs::read_link(place)?.to_string_lossy().into_owned()));
    }
    if !known.is_file() {
        return Ok(Entry::Link("a device or a socket".into()));
    }
    let executable = known.permissions().mode() & 0o111 != 0;
    let (size, sha256) = copy_and_hash(&mut File::open(place)?, &mut io::sink(), u64::MAX)?;
    Ok(Entry::File { executable, size, sha256 })
}

/// Copies at most `max` bytes, and says how many there were and their SHA-256. One byte more than `max`: there is more.
pub(in crate::slugs) fn copy_and_hash(
    from: &mut impl Read,
    to: &mut impl io::Write,
    max: u64,
) -> io::Result<(u64, String)> {
    let (mut context, mut size) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; READ];
    while size <= max {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                context.update(&buffer[..count]);
                to.write_all(&buffer[..count])?;
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((size, hexadecimal::of(context.finish().as_ref())))
}
