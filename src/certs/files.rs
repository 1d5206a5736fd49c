//! Which files the configuration's certificates are in, and whether they are still those that were read.
//!
//! They are looked at again and again rather than watched by inotify: what a name leads to can change far from
//! its directory (certbot's `live/` and the `..data` of a Kubernetes volume are links, exchanged as a whole),
//! a network's file system tells nobody, and a look is a `stat` per file.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{CertFiles, CertSource};

/// What the files of a configuration's certificates were like at a moment; equal as long as nobody touches
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(PathBuf, Option<Stamp>)>);

/// Tells a file's content from an earlier one: written in place it has other times, replaced it is another
/// inode.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Looks at every file that the entries name, through links. Blocks on the disk.
pub(in crate::certs) fn look(sources: &[CertSource]) -> Seen {
    let mut seen = Vec::new();
    for source in sources {
        match &source.files {
            CertFiles::Pair { cert, key } => seen.extend([cert, key].map(|file| stamped(file))),
            CertFiles::Dir(dir) => match files_in(dir) {
                Ok(files) => seen.extend(files.iter().map(|file| stamped(file))),
                Err(_) => seen.push((dir.clone(), None)),
            },
        }
    }
    Seen(seen)
}

fn stamped(file: &Path) -> (PathBuf, Option<Stamp>) {
    let stamp = fs::metadata(file).ok().map(|file| Stamp {
        inode: (file.dev(), file.ino()),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    });
    (file.to_owned(), stamp)
}

/// A certificate's file and its key's.
pub(in crate::certs) type Pair = (PathBuf, PathBuf);

/// The pairs of a directory in the order of their names: `NAME.pem` or `NAME.crt`, and `NAME.key`. Other files
/// are left alone, but half a pair is a mistake, and said.
pub(in crate::certs) fn pairs_in(dir: &Path) -> Result<Vec<Pair>, Vec<String>> {
    let files = files_in(dir)
        .map_err(|error| vec![format!("{}: cannot be read: {error}", dir.display())])?;
    let has = |file: &Path| files.binary_search_by(|it| it.as_path().cmp(file)).is_ok();
    let mut pairs = Vec::new();
    let mut mistakes = Vec::new();
    for file in &files {
        let [pem, crt, key] = ["pem", "crt", "key"].map(|ending| file.with_extension(ending));
        let mut mistake = |what: String| mistakes.push(format!("{}: {what}", file.display()));
        if *file == key {
            if !has(&pem) && !has(&crt) {
                mistake(format!("has no {} beside it, nor a .crt", named(&pem)));
            }
        } else if *file == pem && has(&crt) {
            mistake(format!("has {} beside it; remove one of them", named(&crt)));
        } else if !has(&key) {
            mistake(format!("has no {} beside it", named(&key)));
        } else {
            pairs.push((file.clone(), key));
        }
    }
    if mistakes.is_empty() { Ok(pairs) } else { Err(mistakes) }
}

/// The files of a directory whose ending says that they are certificates or keys, in order.
fn files_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|it| it.to_str());
        if matches!(ending, Some("pem" | "crt" | "key")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn named(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::certs::fixture::Fixture;

    #[test]
    fn pairs_are_found_by_their_names() {
        let fixture = Fixture::new();
        let check = |dir: &str, files: &[&str], expected: Result<&str, &str>| {
            fs::create_dir(fixture.path(dir)).unwrap();
            files.iter().for_each(|file| fixture.write(&format!("{dir}/{file}"), ""));
            let pair = |(cert, key): &Pair| format!("{}+{}", named(cert), named(key));
            let found = pairs_in(&fixture.path(dir));
            let found = found
                .map(|pairs| pairs.iter().map(pair).collect::<Vec<_>>().join(" "))
                .map_err(|said| fixture.relative(&said.join("; ")));
            assert_eq!(found, expected.map(Into::into).map_err(Into::into), "{dir}");
        };
        check("empty", &["README", ".keep", "a.pem.old"], Ok(""));
        check(
            "pairs",
            &["b.key", "b.crt", "a.b.pem", "a.b.key", "a.key", "a.pem"],
            Ok("a.b.pem+a.b.key a.pem+a.key b.crt+b.key"),
        );
        check("keyless", &["a.pem"], Err("keyless/a.pem: has no a.key beside it"));
        check("alone", &["a.key"], Err("alone/a.key: has no a.pem beside it, nor a .crt"));
        check(
            "twice",
            &["a.key", "a.pem", "a.crt", "b.crt"],
            Err("twice/a.pem: has a.crt beside it; remove one of them; \
                 twice/b.crt: has no b.key beside it"),
        );
        let error = pairs_in(&fixture.path("none")).unwrap_err().join("");
        assert!(error.contains("none: cannot be read: "), "{error}");
    }

    /// Everything that can happen to a file is seen, also when its size and times are as before.
    #[test]
    fn a_change_is_seen_in_whatever_way_it_comes() {
        let fixture = Fixture::new();
        let sources = [
            CertFiles::Pair { cert: fixture.path("live/a.pem"), key: fixture.path("live/a.key") },
            CertFiles::Dir(fixture.path("dir")),
        ];
        let sources = sources.map(|files| CertSource { line: 1, files });
        for file in ["archive/1/a.pem", "archive/1/a.key", "archive/2/a.pem", "dir/b.pem"] {
            fixture.write(file, "text");
        }
        symlink(fixture.path("archive/1"), fixture.path("live")).unwrap();
        let mut before = look(&sources);
        assert_eq!(before, look(&sources));
        let mut check = |what: &str| {
            let now = look(&sources);
            assert_ne!(now, before, "{what}");
            before = now;
        };
        symlink(fixture.path("archive/2"), fixture.path("new")).unwrap();
        fs::rename(fixture.path("new"), fixture.path("live")).unwrap();
        check("another directory behind a link, and no key in it");
        fixture.write("archive/2/a.key", "text");
        check("a file that was missing");
        fixture.write("draft", "text");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(fixture.path("archive/2/a.key")).unwrap().set_modified(modified).unwrap();
        check("another time");
        fs::File::open(fixture.path("draft")).unwrap().set_modified(modified).unwrap();
        fs::rename(fixture.path("draft"), fixture.path("archive/2/a.key")).unwrap();
        check("another file of the same size and time");
        fixture.write("dir/b.key", "");
        check("another file in a directory");
        fs::remove_dir_all(fixture.path("dir")).unwrap();
        check("no directory");
    }
}
