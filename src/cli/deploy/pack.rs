//! A directory becomes an archive, the same for the same directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::cli::deploy::ignored::Ignored;
use crate::hexadecimal;
use crate::random;

type Archive = Builder<GzEncoder<File>>;

/// Packs what is in a directory, but for what its `.slugignore` names, into a file that is gone when it is closed.
pub(in crate::cli) fn pack(dir: &Path) -> anyhow::Result<File> {
    let ignored = ignored(&dir.join(".slugignore"))?;
    let file = nameless().context("make a file for the archive in the temporary directory")?;
    // For the time that it takes to be sent over a socket more of it would be a loss.
    let mut archive = Builder::new(GzEncoder::new(file, Compression::fast()));
    pack_dir(&mut archive, &ignored, dir, "")?;
    let packed = archive.into_inner().and_then(GzEncoder::finish);
    let mut file = packed.context("write the archive")?;
    file.rewind().context("read the archive")?;
    Ok(file)
}

fn ignored(file: &Path) -> anyhow::Result<Ignored> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ignored::default()),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    match Ignored::parse(&text) {
        Ok(ignored) => Ok(ignored),
        Err(line) => bail!("{}:{line}: expected a pattern without !", file.display()),
    }
}

fn nameless() -> io::Result<File> {
    let name = format!("dynomesh-{}.tgz", hexadecimal::of(&random::secret::<16>()));
    let path = std::env::temp_dir().join(name);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// `below`: its path in the archive; empty for the root.
fn pack_dir(
    archive: &mut Archive,
    ignored: &Ignored,
    dir: &Path,
    below: &str,
) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut entries = entries.with_context(|| format!("read {}", dir.display()))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            bail!("{}: its name is no UTF-8", path.display());
        };
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().with_context(|| format!("look at {}", path.display()))?;
        if ignored.has(&name, kind.is_dir()) {
            continue;
        }
        let packed = if kind.is_dir() {
            append(archive, &name, EntryType::Directory, 0o755, 0, io::empty())
                .with_context(|| format!("pack {}", path.display()))?;
            pack_dir(archive, ignored, &path, &name)
        } else if kind.is_symlink() {
            pack_link(archive, &name, &path)
        } else if kind.is_file() {
            pack_file(archive, &name, &path)
        } else {
            bail!("{}: it is neither a file nor a directory nor a link", path.display())
        };
        packed.with_context(|| format!("pack {}", path.display()))?;
    }
    Ok(())
}

fn pack_file(archive: &mut Archive, name: &str, path: &Path) -> anyhow::Result<()> {
    let file = File::open(path)?;
    let known = file.metadata()?;
    let mode = if known.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 };
    append(archive, name, EntryType::Regular, mode, known.len(), file)?;
    Ok(())
}

fn pack_link(archive: &mut Archive, name: &str, path: &Path) -> anyhow::Result<()> {
    let mut header = header(EntryType::Symlink, 0o777, 0);
    archive.append_link(&mut header, name, fs::read_link(path)?)?;
    Ok(())
}

fn append(
    archive: &mut Archive,
    name: &str,
    kind: EntryType,
    mode: u32,
    size: u64,
    text: impl io::Read,
) -> io::Result<()> {
    // One that shrinks meanwhile would shift all that follows, and the daemon refuses it; one that grows is cut.
    archive.append_data(&mut header(kind, mode, size), name, text.take(size))
}

/// Of an entry whose times and owner are nobody's concern.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::slugs::Shelf;

    #[test]
    fn what_is_packed_is_what_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let long = "long/".repeat(40) + "name";
        fs::create_dir_all(path(&long)).unwrap();
        for (name, text) in [
            ("Procfile", "web: bin/run\n"),
            (".slugignore", "*.log\n/secret/\n"),
            ("some.log", ""),
            (&*format!("{long}/some"), "text"),
        ] {
            fs::write(path(name), text).unwrap();
        }
        for name in ["secret", ".git", "bin"] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("run"), "#!/bin/sh\n").unwrap();
        }
        fs::set_permissions(path("bin/run"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("bin/run", path("run")).unwrap();
        let state = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(state.path());
        let put = || shelf.put(&pack(dir.path()).unwrap(), &BTreeMap::new()).unwrap();
        let slug = put();
        let tree = crate::config::slug_dir(state.path(), &slug.name);
        let there = |name: &str| tree.join(name).exists();
        for (name, expected) in [
            ("run", true),
            ("bin/run", true),
            (&*format!("{long}/some"), true),
            ("some.log", false),
            ("secret", false),
            (".git", false),
        ] {
            assert_eq!(there(name), expected, "{name}");
        }
        assert_eq!(fs::read_link(tree.join("run")).unwrap(), Path::new("bin/run"));
        assert_eq!(put(), slug, "the same directory is the same slug");
        fs::write(path(".slugignore"), "\n!x").unwrap();
        let error = pack(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with(".slugignore:2: expected a pattern without !"), "{error}");
    }
}
