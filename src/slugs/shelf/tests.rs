use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::config::slug_dir;

/// An archive in the making.
struct Packed(Builder<Vec<u8>>);

impl Packed {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, path: &str, text: &str, link: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        header.set_mode(if path.ends_with(".sh") { 0o4755 } else { 0o600 });
        // As somebody writes it who means harm: the crate's own calls refuse these.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, text.as_bytes()).unwrap();
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        self.entry(EntryType::Regular, path, text, "")
    }

    fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", "")
    }

    fn link(self, path: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, path, "", to)
    }

    fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn tgz(self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.tar()).unwrap();
        encoder.finish().unwrap()
    }
}

struct Scene {
    state: tempfile::TempDir,
    shelf: Shelf,
}

impl Scene {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(state.path());
        Self { state, shelf }
    }

    fn put(&self, archive: &[u8]) -> Result<Slug, ShelfError> {
        self.put_with(archive, &BTreeMap::new())
    }

    fn put_with(
        &self,
        archive: &[u8],
        commands: &BTreeMap<String, String>,
    ) -> Result<Slug, ShelfError> {
        let mut file = self.shelf.archive().unwrap();
        file.write_all(archive).unwrap();
        file.rewind().unwrap();
        self.shelf.put(&file, commands)
    }

    fn tree(&self, slug: &Slug) -> PathBuf {
        slug_dir(self.state.path(), &slug.name)
    }

    /// What is on the shelf, with what is under way.
    fn names(&self) -> usize {
        fs::read_dir(self.state.path().join("slugs")).unwrap().count()
    }
}

fn shop() -> Packed {
    Packed::new()
        .file("Procfile", "web: bin/run.sh\n")
        .dir("bin")
        .file("bin/run.sh", "#!/bin/sh\n")
        .link("bin/go", "../bin/run.sh")
        .entry(EntryType::Link, "copy", "", "bin/run.sh")
}

#[test]
fn a_slug_has_what_the_archive_has_and_is_there_once() {
    let scene = Scene::new();
    let slug = scene.put(&shop().tgz()).unwrap();
    assert_eq!((slug.name.len(), slug.size), (64, 36));
    let tree = scene.tree(&slug);
    assert_eq!(fs::read_to_string(tree.join("bin/go")).unwrap(), "#!/bin/sh\n");
    let mode = |path: &str| fs::metadata(tree.join(path)).unwrap().permissions().mode() & 0o7777;
    let modes = [mode("bin"), mode("bin/run.sh"), mode("Procfile"), mode("copy")];
    assert_eq!(modes, [0o755, 0o755, 0o644, 0o755], "for every user to read, and no setuid");
    // The same by another way: without compression, in a directory.
    let inside = Packed::new()
        .dir("./shop-abc/")
        .file("./shop-abc/bin/run.sh", "#!/bin/sh\n")
        .link("./shop-abc/bin/go", "../bin/run.sh")
        .file("./shop-abc/Procfile", "web: bin/run.sh\n")
        .entry(EntryType::Link, "./shop-abc/copy", "", "shop-abc/bin/run.sh");
    assert_eq!(scene.put(&inside.tar()).unwrap(), slug);
    assert_eq!(scene.names(), 1);
    assert_eq!(scene.shelf.find(slug.id()), Some(slug.clone()));
    scene.shelf.verify(&slug.name).unwrap();
}

#[test]
fn commands_that_are_said_become_the_procfile() {
    let scene = Scene::new();
    let commands = BTreeMap::from([("web".to_owned(), "./serve".to_owned())]);
    for archive in [shop(), Packed::new().file("./app/serve", "")] {
        let slug = scene.put_with(&archive.tgz(), &commands).unwrap();
        let procfile = fs::read_to_string(scene.tree(&slug).join("Procfile")).unwrap();
        assert_eq!(procfile, "web: ./serve\n");
        scene.shelf.verify(&slug.name).unwrap();
    }
}

#[test]
fn what_would_lie_outside_is_refused_by_its_name() {
    let scene = Scene::new();
    let check = |archive: Packed, expected: &str| {
        let error = scene.put(&archive.tgz()).unwrap_err().to_string();
        assert_eq!(error, expected);
        assert_eq!(scene.names(), 0, "{expected}");
    };
    let procfile = || Packed::new().file("Procfile", "web: a\n");
    check(procfile().file("../evil", "x"), "../evil: it leads out of the archive");
    check(procfile().file("a/../../evil", "x"), "a/../../evil: it leads out of the archive");
    check(procfile().file("/etc/evil", "x"), "/etc/evil: it leads out of the archive");
    check(procfile().link("out", "/etc"), "out: it is a link that leads out, to /etc");
    check(procfile().link("a/out", "../../b"), "a/out: it is a link that leads out, to ../../b");
    check(
        procfile().link("dir", ".").file("dir/file", "x"),
        "dir/file: dir above it is no directory",
    );
    check(procfile().file("Procfile", "web: b\n"), "Procfile: it is in the archive twice");
    check(
        procfile().entry(EntryType::Link, "hard", "", "../../etc/passwd"),
        "hard: it is a hard link to no file of the archive",
    );
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let device = procfile().entry(kind, "device", "", "");
        check(device, "device: it is a device, a pipe or the like");
    }
}

#[test]
fn what_is_no_slug_is_refused() {
    let scene = Scene::new();
    let said = |archive: &[u8]| scene.put(archive).unwrap_err().to_string();
    assert!(
        said(b"certainly no archive".repeat(99).as_slice()).starts_with("this is no tar archive")
    );
    assert!(said(b"").starts_with("there is no Procfile in it"));
    assert!(
        said(&Packed::new().file("index.js", "").tgz()).starts_with("there is no Procfile in it")
    );
    let whole = shop().tgz();
    for cut in [1, 30, whole.len() / 2, whole.len() - 9] {
        assert!(scene.put(&whole[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(scene.names(), 0);
}

#[test]
fn what_is_changed_afterwards_is_found() {
    let scene = Scene::new();
    let slug = scene.put(&shop().tgz()).unwrap();
    let tree = scene.tree(&slug);
    let found = || scene.shelf.verify(&slug.name).unwrap_err().to_string();
    fs::write(tree.join("log"), "what a dyno writes is its own").unwrap();
    scene.shelf.verify(&slug.name).unwrap();
    fs::write(tree.join("bin/run.sh"), "#!/bin/su\n").unwrap();
    let damage = found();
    let begin = format!("Error R17 (Checksum error) -> bin/run.sh of slug {}", slug.name);
    assert!(damage.starts_with(&begin) && damage.contains("Expected: SHA256:"), "{damage}");
    fs::remove_file(tree.join("bin/run.sh")).unwrap();
    assert!(found().ends_with("Actual: nothing"), "{}", found());
    fs::write(scene.state.path().join("slugs").join(&slug.name).join("list"), "").unwrap();
    assert!(found().contains("the list of slug"), "{}", found());
}

#[test]
fn what_was_listed_and_nobody_needs_is_removed() {
    let scene = Scene::new();
    let slug = scene.put(&shop().tgz()).unwrap();
    fs::create_dir(scene.state.path().join("slugs/new-0123")).unwrap();
    let listed = scene.shelf.names().unwrap();
    assert_eq!(listed, BTreeSet::from([slug.name.clone()]));
    let other = scene.put(&shop().file("more", "").tgz()).unwrap();
    scene.shelf.remove(&listed).unwrap();
    assert_eq!(scene.shelf.find(slug.id()), None);
    let gone = scene.shelf.verify(&slug.name).unwrap_err().to_string();
    assert!(gone.ends_with("is removed. Deploy it again"), "{gone}");
    assert_eq!(scene.shelf.find(other.id()), Some(other), "it has come since");
    assert_eq!(scene.names(), 2, "an upload that is under way is no slug");
    let abandoned = scene.shelf.abandoned().unwrap();
    let somebodys = scene.state.path().join("slugs/new-4567");
    fs::create_dir(&somebodys).unwrap();
    scene.shelf.remove(&abandoned).unwrap();
    assert_eq!(scene.names(), 2);
    assert!(somebodys.exists(), "an upload that has begun since is nobody's to remove");
    assert_eq!(Shelf::new(&scene.state.path().join("none")).abandoned().unwrap(), BTreeSet::new());
}

/// Packs `text` as what a header of this kind says of the next entry.
fn with_header(kind: EntryType, text: &[u8]) -> Vec<u8> {
    let mut packed = shop();
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(text.len() as u64);
    header.set_cksum();
    packed.0.append(&header, text).unwrap();
    packed.file("next", "x").tgz()
}

#[test]
fn a_header_without_end_is_refused_before_it_is_read() {
    let scene = Scene::new();
    let endless = vec![b'a'; 3 << 20];
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let error = scene.put(&with_header(kind, &endless)).unwrap_err().to_string();
        assert!(
            error.ends_with("what is said of one entry has more than 1 MB"),
            "{kind:?}: {error}"
        );
        assert_eq!(scene.names(), 0, "{kind:?}");
    }
}

#[test]
fn long_names_are_those_of_both_kinds_of_header() {
    let scene = Scene::new();
    let (long, dir) = ("n".repeat(180), "d".repeat(150));
    let (path, link) = (format!("{dir}/{long}"), format!("{dir}/link-{long}"));
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    let mut gnu = shop().0;
    header.set_size(4);
    gnu.append_data(&mut header, &path, "text".as_bytes()).unwrap();
    header.set_size(0);
    header.set_entry_type(EntryType::Symlink);
    gnu.append_link(&mut header, &link, &long).unwrap();
    let mut pax = shop().0;
    let attributes = vec![b'x'; 200 << 10];
    pax.append_pax_extensions([("path", path.as_bytes()), ("comment", &attributes)]).unwrap();
    let pax = Packed(pax).file("cut-off", "text");
    let mut pax = pax.0;
    pax.append_pax_extensions([("path", link.as_bytes()), ("linkpath", long.as_bytes())]).unwrap();
    let pax = Packed(pax).link("cut-off", "nowhere");
    let slugs = [Packed(gnu), pax].map(|archive| scene.put(&archive.tgz()).unwrap());
    assert_eq!(slugs[0], slugs[1]);
    let text = fs::read_to_string(scene.tree(&slugs[0]).join(&link)).unwrap();
    assert_eq!(text, "text");
}
