//! A tar archive, compressed by gzip or not, becomes a directory.
//!
//! The archive is somebody else's: whatever would come to lie outside of the directory, or is no file, directory or link
//! within it, refuses the whole, and is named.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};

use crate::config::limits;
use crate::slugs::list::{Entry, List, copy_and_hash};

/// Bytes that are read beyond the end of an archive, to come to its checksum: programs pad to 10 KiB.
const AFTER_END: u64 = 1 << 20;

/// An archive cannot be a slug.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It ends early, or is no archive at all.
    #[error("this is no tar archive that can be read: {0}")]
    Garbled(io::Error),
    /// An entry that no slug may have.
    #[error("{path}: {why}")]
    Entry {
        /// Its path, as the archive has it.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// It would fill the memory.
    #[error("the names in it have more than {} MB", limits::SLUG_NAMES_MAX >> 20)]
    LongNames,
    /// It would fill the disk.
    #[error("it has more than {} entries", limits::SLUG_ENTRIES_MAX)]
    TooMany,
    /// The same.
    #[error("unpacked it has more than {} MB", limits::SLUG_BYTES_MAX >> 20)]
    TooLarge,
    /// The disk.
    #[error("unpack: {0}")]
    Disk(io::Error),
}

/// Unpacks an archive into the directory `to`, which is made, and says what is in it. `commands`: the Procfile that it has
/// then, in place of its own.
///
/// An archive of one directory is that directory: Heroku's slugs have `./app`, archives of git servers `NAME-COMMIT`.
pub(in crate::slugs) fn unpack(
    archive: &File,
    to: &Path,
    commands: &BTreeMap<String, String>,
) -> Result<List, UnpackError> {
    fs::create_dir(to).map_err(UnpackError::Disk)?;
    let mut unpacked = Unpacked { dir: to, list: List::default(), names: 0, bytes: 0 };
    let mut reader = BufReader::new(archive);
    let is_gzip = io::BufRead::fill_buf(&mut reader)
        .map_err(UnpackError::Garbled)?
        .starts_with(&[0x1f, 0x8b]);
    match is_gzip {
        true => unpacked.take_all(MultiGzDecoder::new(reader))?,
        false => unpacked.take_all(reader)?,
    }
    let mut list = unpacked.list;
    if let Some(only) = only_dir(&list) {
        list = lift(to, &only, list).map_err(UnpackError::Disk)?;
    }
    if !commands.is_empty() {
        let text: String =
            commands.iter().map(|(name, command)| format!("{name}: {command}\n")).collect();
        list.0.remove("Procfile");
        let _ = fs::remove_file(to.join("Procfile"));
        let entry = write(&to.join("Procfile"), &mut text.as_bytes(), false, u64::MAX);
        list.0.insert("Procfile".into(), entry.map_err(UnpackError::Disk)?);
    }
    Ok(list)
}

struct Unpacked<'a> {
    dir: &'a Path,
    list: List,
    /// Bytes of all names.
    names: usize,
    /// Bytes of all files.
    bytes: u64,
}

impl Unpacked<'_> {
    fn take_all(&mut self, text: impl Read) -> Result<(), UnpackError> {
        let left = Cell::new(u64::MAX);
        let mut archive = Archive::new(Rationed { text, left: &left });
        let mut entries = archive.entries().map_err(UnpackError::Garbled)?;
        loop {
            left.set(limits::SLUG_HEADERS_MAX);
            let entry = entries.next().transpose().map_err(UnpackError::Garbled)?;
            left.set(u64::MAX);
            let Some(mut entry) = entry else { break };
            if self.list.0.len() >= limits::SLUG_ENTRIES_MAX {
                return Err(UnpackError::TooMany);
            }
            self.take(&mut entry)?;
            if self.names > limits::SLUG_NAMES_MAX {
                return Err(UnpackError::LongNames);
            }
            // What nobody wants of it is none of the next one's headers.
            io::copy(&mut entry, &mut io::sink()).map_err(UnpackError::Garbled)?;
        }
        // What comes after its end is padding, and the checksum of what was compressed.
        let mut rest = archive.into_inner().take(AFTER_END);
        io::copy(&mut rest, &mut io::sink()).map_err(UnpackError::Garbled)?;
        Ok(())
    }

    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let said = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |why: &str| UnpackError::Entry { path: said.clone(), why: why.to_owned() };
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = entry.path().map_err(|_| refused("its name is no UTF-8"))?.into_owned();
        let path =
            inside(Path::new(""), &path).ok_or_else(|| refused("it leads out of the archive"))?;
        if path.is_empty() {
            return Ok(());
        }
        self.make_parents(&path).map_err(|why| refused(&why))?;
        let place = self.dir.join(&path);
        let made = match kind {
            EntryType::Directory => {
                if self.list.0.get(&path) == Some(&Entry::Dir) {
                    return Ok(());
                }
                self.refuse_twice(&path).map_err(|why| refused(&why))?;
                make_dir(&place).map_err(UnpackError::Disk)?;
                Entry::Dir
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.refuse_twice(&path).map_err(|why| refused(&why))?;
                let executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
                let left = limits::SLUG_BYTES_MAX - self.bytes;
                let written = write(&place, entry, executable, left);
                let written = written.map_err(unwritten)?;
                let Entry::File { size, .. } = written else { return Err(UnpackError::TooLarge) };
                if size > left {
                    return Err(UnpackError::TooLarge);
                }
                self.bytes += size;
                written
            }
            EntryType::Symlink => {
                self.refuse_twice(&path).map_err(|why| refused(&why))?;
                let to = entry.link_name().ok().flatten();
                let to = to.ok_or_else(|| refused("it is a link to nowhere"))?.into_owned();
                let from = Path::new(&path).parent().unwrap_or(Path::new(""));
                if inside(from, &to).is_none() {
                    return Err(refused(&format!(
                        "it is a link that leads out, to {}",
                        to.display()
                    )));
                }
                symlink(&to, &place).map_err(UnpackError::Disk)?;
                Entry::Link(to.to_string_lossy().into_owned())
            }
            EntryType::Link => {
                self.refuse_twice(&path).map_err(|why| refused(&why))?;
                let to = entry.link_name().ok().flatten();
                let to = to.and_then(|to| inside(Path::new(""), &to));
                let of = to.and_then(|to| Some((self.list.0.get(&to)?.clone(), to)));
                let Some((same @ Entry::File { size, .. }, to)) = of else {
                    return Err(refused("it is a hard link to no file of the archive"));
                };
                self.bytes = self.bytes.saturating_add(size);
                if self.bytes > limits::SLUG_BYTES_MAX {
                    return Err(UnpackError::TooLarge);
                }
                fs::copy(self.dir.join(to), &place).map_err(UnpackError::Disk)?;
                same
            }
            _ => return Err(refused("it is a device, a pipe or the like")),
        };
        self.keep(path, made);
        Ok(())
    }

    fn keep(&mut self, path: String, entry: Entry) {
        self.names += path.len();
        if let Entry::Link(to) = &entry {
            self.names += to.len();
        }
        self.list.0.insert(path, entry);
    }

    fn refuse_twice(&self, path: &str) -> Result<(), String> {
        match self.list.0.contains_key(path) {
            true => Err("it is in the archive twice".into()),
            false => Ok(()),
        }
    }

    /// Makes the directories above a path that the archive does not name itself. What is above it must be none but those:
    /// behind a link is another place.
    fn make_parents(&mut self, path: &str) -> Result<(), String> {
        let ends = path.match_indices('/').map(|(end, _)| end);
        for parent in ends.map(|end| &path[..end]) {
            match self.list.0.get(parent) {
                Some(Entry::Dir) => {}
                Some(_) => return Err(format!("{parent} above it is no directory")),
                None => {
                    make_dir(&self.dir.join(parent)).map_err(|error| error.to_string())?;
                    self.keep(parent.to_owned(), Entry::Dir);
                }
            }
        }
        Ok(())
    }
}

/// A text of which no more is read than whoever holds `left` allows.
struct Rationed<'a, T> {
    text: T,
    left: &'a Cell<u64>,
}

impl<T: Read> Read for Rationed<'_, T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            let max = limits::SLUG_HEADERS_MAX >> 20;
            let message = format!("what is said of one entry has more than {max} MB");
            return Err(io::Error::other(message));
        }
        let length = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.text.read(&mut into[..length])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// Where `path` leads from the directory `from`, both within the same root; `None`: out of it.
fn inside(from: &Path, path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = from.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn make_dir(place: &Path) -> io::Result<()> {
    fs::create_dir(place)?;
    // Whatever the umask is: dynos of other users read it.
    fs::set_permissions(place, fs::Permissions::from_mode(0o755))
}

/// Why a file was not written: the disk, or the archive that it was read from.
fn unwritten(error: io::Error) -> UnpackError {
    match error.raw_os_error() {
        Some(_) => UnpackError::Disk(error),
        None => UnpackError::Garbled(error),
    }
}

fn write(place: &Path, text: &mut impl Read, executable: bool, max: u64) -> io::Result<Entry> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)?;
    let (size, sha256) = copy_and_hash(text, &mut file, max)?;
    let mode = if executable { 0o755 } else { 0o644 };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(Entry::File { executable, size, sha256 })
}

/// The directory that all else is in, if there is one.
fn only_dir(list: &List) -> Option<String> {
    let mut top = list.0.iter().filter(|(path, _)| !path.contains('/'));
    match (top.next(), top.next()) {
        (Some((path, Entry::Dir)), None) => Some(path.clone()),
        _ => None,
    }
}

/// Puts what is in the directory `only` of `to` in the place of `to`.
fn lift(to: &Path, only: &str, list: List) -> io::Result<List> {
    let around = to.with_extension("around");
    fs::rename(to, &around)?;
    fs::rename(around.join(only), to)?;
    fs::remove_dir(&around)?;
    let below = format!("{only}/");
    let lifted = list.0.into_iter();
    let lifted =
        lifted.filter_map(|(path, entry)| Some((path.strip_prefix(&below)?.to_owned(), entry)));
    Ok(List(lifted.collect()))
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    #[test]
    fn names_are_bounded_those_of_links_and_of_unnamed_directories_too() {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "abc/de/f", "ghi").unwrap();
        let archive = archive.into_inner().unwrap();
        let unpack_with = |left: usize| {
            let dir = tempfile::tempdir().unwrap();
            let (list, names) = (List::default(), limits::SLUG_NAMES_MAX - left);
            Unpacked { dir: dir.path(), list, names, bytes: 0 }.take_all(&archive[..])
        };
        let needed = "abc".len() + "abc/de".len() + "abc/de/f".len() + "ghi".len();
        unpack_with(needed).unwrap();
        let refused = unpack_with(needed - 1).unwrap_err();
        assert_eq!(refused.to_string(), "the names in it have more than 128 MB");
    }
}
