//! The kernel's small files: numbers, and lines of a word and a number.

use std::fs;
use std::io;
use std::path::Path;

/// Writes one value. What does not exist cannot be made: the kernel has all files that a group will have.
pub(crate) fn write(dir: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    fs::write(dir.join(file), value.to_string())
}

/// The number that a file consists of.
pub(crate) fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// A file of lines like `anon 4096`.
pub(crate) struct Fields(String);

impl Fields {
    pub(crate) fn read(dir: &Path, file: &str) -> Option<Self> {
        fs::read_to_string(dir.join(file)).ok().map(Self)
    }

    /// The number beside a word.
    pub(crate) fn get(&self, word: &str) -> Option<u64> {
        let of_word = |line: &str| line.strip_prefix(word)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(of_word)
    }
}

/// The names of the directories in a directory; none where it cannot be read.
pub(crate) fn subdirectories(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
    dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Makes a directory, unless it is there.
pub(crate) fn ensure_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}
