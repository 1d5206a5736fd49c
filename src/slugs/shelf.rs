//! The directory in which slugs are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{SLUG_TREE, SLUGS_DIR};
use crate::hexadecimal;
use crate::model::Id;
use crate::private_file;
use crate::random;
use crate::slugs::list::{Damage, List};
use crate::slugs::unpack::{UnpackError, unpack};

/// Of a slug: what is in it.
const LIST: &str = "list";
/// What is under way begins with this, and no slug's name does.
const UNDER_WAY: &str = "new-";

/// The slugs of one state directory. Every call blocks on the disk.
#[derive(Clone, Debug)]
pub struct Shelf {
    dir: PathBuf,
}

/// A slug on the shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slug {
    /// The SHA-256 of what is in it, in 64 hexadecimal digits.
    pub name: String,
    /// The bytes of its files.
    pub size: u64,
}

/// A slug cannot be put on the shelf.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] UnpackError),
    /// It has nothing to run.
    #[error(
        "there is no Procfile in it: say in a file Procfile at its root what runs, e.g. web: node server.js"
    )]
    NoProcfile,
    /// The disk.
    #[error("keep the slug: {0}")]
    Disk(#[from] io::Error),
}

impl Slug {
    /// By which programs know it: the first half of its name.
    pub fn id(&self) -> Id {
        id_of(&self.name)
    }
}

/// By which programs know the slug of this name.
pub fn id_of(name: &str) -> Id {
    let digits = name.get(..32).and_then(|digits| u128::from_str_radix(digits, 16).ok());
    Id::of_bytes(digits.unwrap_or_default().to_be_bytes())
}

impl Shelf {
    /// Of this state directory. Nothing is touched yet.
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join(SLUGS_DIR) }
    }

    /// A file for an archive that comes, gone when it is closed.
    pub fn archive(&self) -> io::Result<File> {
        private_file::make_dir(&self.dir)?;
        let path = self.under_way();
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// Makes a slug of an archive, read from where it stands. One that is there already stays as it is. `commands`: its
    /// Procfile, if not its own.
    pub fn put(
        &self,
        archive: &File,
        commands: &BTreeMap<String, String>,
    ) -> Result<Slug, ShelfError> {
        private_file::make_dir(&self.dir)?;
        let new = self.under_way();
        fs::create_dir(&new)?;
        let put = self.put_by_way_of(&new, archive, commands);
        if new.exists() {
            // What is left is removed at the next start.
            let _ = fs::remove_dir_all(&new);
        }
        put
    }

    fn put_by_way_of(
        &self,
        new: &Path,
        archive: &File,
        commands: &BTreeMap<String, String>,
    ) -> Result<Slug, ShelfError> {
        let list = unpack(archive, &new.join(SLUG_TREE), commands)?;
        if !list.0.contains_key("Procfile") {
            return Err(ShelfError::NoProcfile);
        }
        let slug = Slug { name: list.name(), size: list.size() };
        if self.dir.join(&slug.name).exists() {
            return Ok(slug);
        }
        fs::write(new.join(LIST), list.text())?;
        // Of thousands of files, all at once; a slug of this name is whole also after a loss of power.
        rustix::fs::syncfs(File::open(new)?).map_err(io::Error::from)?;
        match fs::rename(new, self.dir.join(&slug.name)) {
            // Somebody else was faster with the same.
            Err(_) if self.dir.join(&slug.name).exists() => {}
            renamed => renamed?,
        }
        File::open(&self.dir)?.sync_all()?;
        Ok(slug)
    }

    /// The slug that programs know by this id.
    pub fn find(&self, id: Id) -> Option<Slug> {
        let names = self.names().ok()?;
        let name = names.into_iter().find(|name| id_of(name) == id)?;
        let list = List::read(&name, &self.dir.join(&name).join(LIST)).ok()?;
        Some(Slug { size: list.size(), name })
    }

    /// Whether a slug is what was deployed. Reads all of it.
    pub fn verify(&self, name: &str) -> Result<(), Damage> {
        let dir = self.dir.join(name);
        List::read(name, &dir.join(LIST))?.check(name, &dir.join(SLUG_TREE))
    }

    /// What an earlier daemon had under way. To be asked before anything new is.
    pub fn abandoned(&self) -> io::Result<BTreeSet<String>> {
        let names = self.entries()?.into_iter();
        Ok(names.filter(|name| name.starts_with(UNDER_WAY)).collect())
    }

    /// The names of all slugs.
    pub fn names(&self) -> io::Result<BTreeSet<String>> {
        let names = self.entries()?.into_iter();
        Ok(names.filter(|name| !name.starts_with(UNDER_WAY)).collect())
    }

    /// Removes these: slugs, or what was abandoned. What has come since they were listed is somebody's.
    pub fn remove(&self, names: &BTreeSet<String>) -> io::Result<()> {
        for name in self.entries()?.into_iter().filter(|name| names.contains(name)) {
            // First its name: half of a slug must not have it.
            let gone = self.under_way();
            fs::rename(self.dir.join(name), &gone)?;
            match gone.is_dir() {
                true => fs::remove_dir_all(&gone)?,
                false => fs::remove_file(&gone)?,
            }
        }
        Ok(())
    }

    /// The names of all that is there; none, if nothing was ever kept.
    fn entries(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(|entry| entry.map(name)).collect()
    }

    fn under_way(&self) -> PathBuf {
        self.dir.join(format!("{UNDER_WAY}{}", hexadecimal::of(&random::secret::<16>())))
    }
}

#[cfg(test)]
mod tests; // archives good and bad
