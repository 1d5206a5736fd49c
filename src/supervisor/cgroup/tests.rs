//! Groups in directories that look like the kernel's, and in the kernel's own where this process may make some.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::init::ControlGroup;
use crate::model::{CpuShare, Sizes};
use crate::supervisor::cgroup::detect::Home;

const MB: u64 = 1 << 20;
const OWN: u32 = 77;

fn limits() -> SizeLimits {
    SizeLimits { memory: 32 * MB, cpu: CpuShare::Shared(2), cpus: Some(500), processes: 40 }
}

/// A directory in which files are as they are told to be.
struct Tree(TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.put(files);
        tree
    }

    fn put(&self, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// What is in the files of a directory.
    fn files(&self, dir: &str) -> BTreeMap<String, String> {
        let files = fs::read_dir(self.path(dir)).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.is_file())
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    /// The kernel removes a group with its files; here they have to go first.
    fn clear(&self, dir: &str) {
        for name in self.files(dir).keys() {
            fs::remove_file(self.path(dir).join(name)).unwrap();
        }
    }

    fn v1(&self) -> Cgroups {
        let home = |controllers: &[&'static str], dir| Home {
            controllers: controllers.to_vec(),
            dir: self.path(dir),
        };
        let homes = vec![
            home(&["memory"], "memory"),
            home(&["cpu", "cpuacct"], "cpu"),
            home(&["pids"], "pids"),
            home(&["freezer"], "freezer"),
        ];
        Cgroups::prepare(Hierarchy::V1(homes), "dynos", OWN).unwrap()
    }

    fn v2(&self, own: &str) -> Result<Cgroups, NoCgroups> {
        let hierarchy = Hierarchy::V2 { root: self.path(""), own: self.path(own) };
        Cgroups::prepare(hierarchy, "dynos", OWN)
    }
}

fn place(tree: &Tree, dir: &str, home: &str) -> ControlGroup {
    ControlGroup { dir: tree.path(dir), home: tree.path(home) }
}

fn texts<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
    files.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

#[test]
fn v1_limits_what_a_dyno_takes() {
    let tree = Tree::new(&[("memory/x", ""), ("cpu/x", ""), ("pids/x", ""), ("freezer/x", "")]);
    let cgroups = tree.v1();
    assert_eq!(cgroups.describe(), "cgroup v1: cpu, cpuacct, freezer, memory, pids");
    let group = cgroups.make("a", &limits()).unwrap();
    assert_eq!(group.places().len(), 4);
    assert_eq!(group.places()[1], place(&tree, "cpu/dynos/a", "cpu"));
    assert_eq!(
        tree.files("memory/dynos/a"),
        texts([("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "67108864")])
    );
    assert_eq!(
        tree.files("cpu/dynos/a"),
        texts([("cpu.cfs_quota_us", "50000"), ("cpu.shares", "2048")])
    );
    assert_eq!(tree.files("pids/dynos/a"), texts([("pids.max", "40")]));
    group.freeze().unwrap();
    assert_eq!(tree.files("freezer/dynos/a"), texts([("freezer.state", "FROZEN")]));
    group.thaw().unwrap();
    assert_eq!(tree.files("freezer/dynos/a"), texts([("freezer.state", "THAWED")]));
}

#[test]
fn v1_tells_what_a_dyno_takes() {
    let tree = Tree::new(&[("memory/x", ""), ("cpu/x", ""), ("pids/x", ""), ("freezer/x", "")]);
    let group = tree.v1().make("a", &limits()).unwrap();
    assert_eq!(group.usage(), Usage::default());
    tree.put(&[
        (
            "memory/dynos/a/memory.stat",
            "cache 1\nrss 2\ntotal_cache 700\ntotal_rss 5000\ntotal_rss_huge 1\ntotal_shmem 300\ntotal_swap 20\ntotal_pgpgin 8\ntotal_pgpgout 9\n",
        ),
        ("memory/dynos/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ("cpu/dynos/a/cpuacct.usage", "1500000000\n"),
        ("cpu/dynos/a/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 2000000\n"),
        ("pids/dynos/a/pids.current", "7\n"),
    ]);
    let memory = Memory {
        rss: 5000,
        cache: 700,
        shared: 300,
        swap: 20,
        quota: 32 * MB,
        paged: Some((8, 9)),
    };
    assert_eq!((memory.total(), memory.charged()), (5720, 5320));
    let expected = Usage {
        memory: Some(memory),
        oom_kills: 3,
        cpu: Some(Duration::from_millis(1500)),
        throttled: Some(Duration::from_millis(2)),
        tasks: Some(7),
    };
    assert_eq!(group.usage(), expected);
    let adopted = Group::adopt(group.places().to_vec()).unwrap();
    assert_eq!(adopted.usage(), expected, "the next daemon reads the same");
}

#[test]
fn v1_does_without_a_controller_that_it_does_not_get() {
    // A file stands where the directory ought to be.
    let tree = Tree::new(&[("memory/x", ""), ("cpu", ""), ("pids/x", ""), ("freezer/x", "")]);
    assert_eq!(tree.v1().describe(), "cgroup v1: freezer, memory, pids");
}

const SERVICE: [(&str, &str); 4] = [
    ("cgroup.controllers", "cpuset cpu io memory pids"),
    ("service/cgroup.controllers", "cpu memory pids"),
    ("service/cgroup.type", "domain"),
    ("service/cgroup.procs", "77\n"),
];

fn service() -> Tree {
    let tree = Tree::new(&SERVICE);
    // What the kernel would show in groups as soon as they are made.
    tree.put(&[("service/dynos/cgroup.controllers", "cpu memory pids")]);
    tree
}

#[test]
fn v2_moves_the_daemon_out_of_the_way_of_its_controllers() {
    let tree = service();
    let cgroups = tree.v2("service").unwrap();
    assert_eq!(cgroups.describe(), "cgroup v2: cpu, memory, pids");
    assert_eq!(tree.files("service/daemon"), texts([("cgroup.procs", "77")]));
    // The last of three that were written; the kernel adds them up.
    assert_eq!(tree.files("service")["cgroup.subtree_control"], "+pids");
    assert_eq!(tree.files("service/dynos")["cgroup.subtree_control"], "+pids");
    let group = cgroups.make("a", &limits()).unwrap();
    assert_eq!(group.places(), [place(&tree, "service/dynos/a", "service/daemon")]);
    assert_eq!(
        tree.files("service/dynos/a"),
        texts([
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "200"),
            ("memory.max", "67108864"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "67108864"),
            ("pids.max", "40"),
        ])
    );
    group.freeze().unwrap();
    assert_eq!(tree.files("service/dynos/a")["cgroup.freeze"], "1");
}

#[test]
fn v2_finds_its_place_again_after_a_restart() {
    let tree = service();
    tree.put(&[
        ("service/cgroup.subtree_control", "cpu memory pids"),
        ("service/cgroup.procs", ""),
        ("service/daemon/cgroup.procs", "77\n78\n"),
    ]);
    let group = tree.v2("service/daemon").unwrap().make("a", &limits()).unwrap();
    assert_eq!(group.places(), [place(&tree, "service/dynos/a", "service/daemon")]);
}

#[test]
fn v2_goes_to_the_root_from_a_group_that_others_are_in() {
    let tree = service();
    tree.put(&[
        ("service/cgroup.procs", "77\n78\n"),
        ("dynos/cgroup.controllers", "cpu memory pids"),
    ]);
    let group = tree.v2("service").unwrap().make("a", &limits()).unwrap();
    assert_eq!(group.places(), [place(&tree, "dynos/a", "service")]);
    assert!(!tree.path("service/daemon").exists());
}

#[test]
fn v2_without_controllers_is_none() {
    let tree = Tree::new(&[("cgroup.controllers", "hugetlb"), ("dynos/cgroup.controllers", "")]);
    assert!(matches!(tree.v2(""), Err(NoCgroups::NotMounted)));
    let error = Tree::new(&[]).v2("").err().unwrap().to_string();
    assert!(error.ends_with("No such file or directory (os error 2)"), "{error}");
}

#[test]
fn v2_tells_what_a_dyno_takes() {
    let tree = service();
    let group = tree.v2("service").unwrap().make("a", &limits()).unwrap();
    tree.put(&[
        ("service/dynos/a/cgroup.controllers", "cpu memory pids"),
        ("service/dynos/a/memory.stat", "anon 5000\nanon_thp 1\nfile 700\nshmem 300\n"),
        ("service/dynos/a/memory.swap.current", "20\n"),
        ("service/dynos/a/memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 1\n"),
        ("service/dynos/a/cpu.stat", "usage_usec 1500000\nuser_usec 1\nthrottled_usec 2000\n"),
        ("service/dynos/a/pids.current", "7\n"),
    ]);
    let expected = Usage {
        memory: Some(Memory {
            rss: 5000,
            cache: 700,
            shared: 300,
            swap: 20,
            quota: 32 * MB,
            paged: None,
        }),
        oom_kills: 3,
        cpu: Some(Duration::from_millis(1500)),
        throttled: Some(Duration::from_millis(2)),
        tasks: Some(7),
    };
    assert_eq!(group.usage(), expected);
    assert_eq!(Group::adopt(group.places().to_vec()).unwrap().usage(), expected);
}

#[tokio::test]
async fn what_an_earlier_daemon_left_is_removed_but_for_those_who_live() {
    let tree = Tree::new(&[("memory/x", ""), ("cpu/x", ""), ("pids/x", ""), ("freezer/x", "")]);
    let cgroups = tree.v1();
    for path in ["memory/dynos/gone", "memory/dynos/lives", "cpu/dynos/gone"] {
        fs::create_dir(tree.path(path)).unwrap();
    }
    let leftovers = cgroups.leftovers(|id| id == "lives");
    assert_eq!(leftovers.len(), 2);
    sweep(leftovers).await;
    assert!(tree.path("memory/dynos/lives").exists());
    assert!(!tree.path("memory/dynos/gone").exists() && !tree.path("cpu/dynos/gone").exists());
}

#[test]
fn a_group_is_removed_with_its_dyno() {
    let tree = Tree::new(&[("memory/x", ""), ("cpu/x", ""), ("pids/x", ""), ("freezer/x", "")]);
    let cgroups = tree.v1();
    let group = cgroups.make("a", &limits()).unwrap();
    assert!(cgroups.make("a", &limits()).is_err(), "one of its name is there");
    let group_again = cgroups.make("b", &limits()).unwrap();
    for controller in ["memory", "cpu", "pids"] {
        tree.clear(&format!("{controller}/dynos/a"));
    }
    assert!(group_again.remove().is_err(), "its files are there");
    drop(group);
    assert!(!tree.path("memory/dynos/a").exists() && !tree.path("freezer/dynos/a").exists());
}

#[test]
fn each_state_directory_has_a_name_of_its_own_that_stays() {
    let name = parent_name(Path::new("/var/lib/dynomesh"));
    assert_eq!(name, "dynomesh-488fa06b901f040d");
    assert_ne!(name, parent_name(Path::new("/var/lib/dynomesh2")));
}

/// The kernel's own groups, where this process may make some.
#[tokio::test]
async fn the_hosts_groups_hold_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cgroups) = Cgroups::start(dir.path()) else {
        eprintln!("skipped: this process may make no control groups");
        return;
    };
    let size = Sizes::heroku().find("basic").unwrap().limits;
    let group = cgroups.make("test", &size).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a process that no dyno is")]
    let mut child = std::process::Command::new("/bin/sh");
    let enter: Vec<String> =
        group.dirs().map(|dir| format!("echo 0 > {}/cgroup.procs", dir.display())).collect();
    child.arg("-c").arg(format!(
        "{}; x=$(head -c 8000000 /dev/zero | tr '\\0' x); while :; do :; done",
        enter.join("; ")
    ));
    let mut child = child.spawn().unwrap();
    let busy = async {
        while group.runnable() == 0 || group.usage().memory.is_none_or(|it| it.rss < 8_000_000) {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(Duration::from_secs(20), busy).await.unwrap();
    let usage = group.usage();
    assert!(usage.memory.is_some_and(|it| it.rss < 64 * MB), "{usage:?}");
    assert!(usage.cpu > Some(Duration::ZERO) && usage.tasks > Some(0), "{usage:?}");
    assert_eq!(usage.oom_kills, 0);
    group.freeze().unwrap();
    let stopped = async {
        loop {
            let before = group.usage().cpu;
            time::sleep(Duration::from_millis(50)).await;
            if group.usage().cpu == before {
                return;
            }
        }
    };
    time::timeout(Duration::from_secs(20), stopped).await.unwrap();
    assert!(group.remove().is_err(), "somebody is in it");
    // The next daemon finds it, and ends who is in it, frozen or not.
    let places = group.places().to_vec();
    let leftovers = cgroups.leftovers(|_| false);
    assert_eq!(leftovers.len(), places.len());
    let reaped = async {
        while child.try_wait().unwrap().is_none() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(sweep(leftovers), reaped);
    assert!(places.iter().all(|it| !it.dir.exists()));
    drop(cgroups);
    assert!(places.iter().all(|it| !it.dir.parent().unwrap().exists()), "nothing is left of us");
}
