//! Small text files that the configuration is or names, read with a bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::config::limits;

/// Reads a file of UTF-8 text of at most [`limits::CONFIG_FILE_MAX`] bytes. The error is a fragment that
/// fits after the file's name.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    // Opening a pipe would wait for whoever writes to it.
    if !path.metadata().map_err(cannot)?.is_file() {
        return Err("is not a file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(limits::CONFIG_FILE_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limits::CONFIG_FILE_MAX {
        return Err(format!("is larger than {} MiB", limits::CONFIG_FILE_MAX / (1024 * 1024)));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let written = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            read(&dir.path().join(name))
        };
        assert_eq!(written("a", b"x"), Ok("x".into()));
        assert_eq!(written("b", b"\xff"), Err("is not UTF-8 text".into()));
        assert_eq!(written("c", &[b'x'; 1024 * 1024]).map(|it| it.len()), Ok(1024 * 1024));
        assert_eq!(written("d", &[b'x'; 1024 * 1024 + 1]), Err("is larger than 1 MiB".into()));
        assert_eq!(read(dir.path()), Err("is not a file".into()));
        assert_eq!(read(&dir.path().join("none")), Err("no such file".into()));
    }
}
