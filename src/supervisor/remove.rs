//! Removes the directory of a dyno, whatever the dyno has made of it.
//!
//! A dyno nests directories as deep as it likes. To follow it down takes a stack frame and a descriptor for each
//! level, as `fs::remove_dir_all` does, and then a dyno can end the daemon: here each subdirectory is moved up
//! to the top, and emptied there.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes a directory with all that is in it, with a stack and descriptors that do not depend on what that is.
/// Links are removed, never followed. That something is gone already is fine; call it when nobody adds to it.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    let top = match open(CWD, dir) {
        Ok(top) => top,
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Ok(gone(unlinkat(CWD, dir, AtFlags::empty()))?);
        }
        Err(error) => return Ok(gone(Err(error))?),
    };
    let mut flat = Flat { top: top.as_fd(), moved: 0 };
    while flat.empty_each()? {}
    Ok(gone(unlinkat(CWD, dir, AtFlags::REMOVEDIR))?)
}

/// The directory that is to be removed. What is deeper in it comes up, one level at a time.
struct Flat<'fd> {
    top: BorrowedFd<'fd>,
    /// How many names were given to what came up.
    moved: u64,
}

impl Flat<'_> {
    /// Removes what is at the top; what was in there may be at the top afterwards. `false`: there was nothing.
    fn empty_each(&mut self) -> Result<bool, Errno> {
        for_each(self.top, |name| {
            if !remove_one(self.top, name)? {
                self.dissolve(name)?;
            }
            Ok(())
        })
    }

    /// Removes a directory at the top that has something in it.
    fn dissolve(&mut self, name: &CStr) -> Result<(), Errno> {
        let dir = match open(self.top, name) {
            // Something else has its name now, which the next look finds.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            dir => dir?,
        };
        // A directory that is changed while it is read may have more in it than was seen.
        while for_each(dir.as_fd(), |name| {
            if !remove_one(dir.as_fd(), name)? {
                self.move_up(dir.as_fd(), name)?;
            }
            Ok(())
        })? {}
        gone(unlinkat(self.top, name, AtFlags::REMOVEDIR))
    }

    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            let new = format!("moved-{}", self.moved);
            self.moved += 1;
            match renameat(dir, name, self.top, &new) {
                // The name is taken: an earlier removal did not come to its end.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                result => return gone(result),
            }
        }
    }
}

/// Removes a file, a link or an empty directory. `false`: it is a directory that has something in it.
fn remove_one(dir: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    let result = match unlinkat(dir, name, AtFlags::empty()) {
        // Linux has the first; POSIX has the second.
        Err(Errno::ISDIR | Errno::PERM) => unlinkat(dir, name, AtFlags::REMOVEDIR),
        result => result,
    };
    match gone(result) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        result => result.map(|()| true),
    }
}

/// Does something with each name in a directory, read from its beginning. `false`: there is none.
fn for_each(
    dir: BorrowedFd<'_>,
    mut deed: impl FnMut(&CStr) -> Result<(), Errno>,
) -> Result<bool, Errno> {
    let mut found = false;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            found = true;
            deed(entry.file_name())?;
        }
    }
    Ok(found)
}

fn open(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// That it was gone before is as good.
fn gone(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::thread;

    use rustix::fs::mkdirat;

    use super::*;

    /// By descriptors: a path of this length is none.
    fn nest(dir: &Path, levels: u32) {
        let mut at = open(CWD, dir).unwrap();
        for _ in 0..levels {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, "d").unwrap();
        }
    }

    #[test]
    fn any_depth_is_removed_on_a_small_stack() {
        // In memory, where there is some: a disk takes half a minute for so many directories.
        let memory = Path::new("/dev/shm");
        let dir = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
        let dyno = dir.path().join("dyno");
        for name in ["upper/deep", "upper/deeper", "work", "moved-0/kept"] {
            fs::create_dir_all(dyno.join(name)).unwrap();
        }
        nest(&dyno.join("upper/deep"), 30_000);
        nest(&dyno.join("upper/deeper"), 100);
        fs::write(dyno.join("upper/deep/d/file"), "x").unwrap();
        let stack = thread::Builder::new().stack_size(128 << 10);
        let path = dyno.clone();
        stack.spawn(move || remove(&path)).unwrap().join().unwrap().unwrap();
        assert!(!dyno.exists());
    }

    #[test]
    fn links_are_removed_and_what_they_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, dyno) = (dir.path().join("outside"), dir.path().join("dyno"));
        fs::create_dir_all(outside.join("below")).unwrap();
        fs::write(outside.join("below/file"), "kept").unwrap();
        fs::create_dir_all(dyno.join("a/b")).unwrap();
        for link in ["link", "a/link", "a/b/link"] {
            symlink(&outside, dyno.join(link)).unwrap();
        }
        symlink(outside.join("below/file"), dyno.join("a/file")).unwrap();
        symlink("nowhere", dyno.join("a/b/broken")).unwrap();
        remove(&dyno).unwrap();
        assert!(!dyno.exists());
        symlink(&outside, &dyno).unwrap();
        remove(&dyno).unwrap();
        assert!(dyno.symlink_metadata().is_err());
        assert_eq!(fs::read_to_string(outside.join("below/file")).unwrap(), "kept");
    }

    #[test]
    fn what_is_gone_or_a_file_is_removed_too() {
        let dir = tempfile::tempdir().unwrap();
        remove(&dir.path().join("never")).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        remove(&file).unwrap();
        assert!(!file.exists());
    }
}
