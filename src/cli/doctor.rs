//! `dynomesh doctor`

use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::place::File;
use crate::config::{Config, NetworkWanted, limits};
use crate::init::{
    NetworkTrial, Part, SYSTEM, Trial, TrialError, Upper, overlap, try_network, try_sandbox,
    unreached_resolver,
};

/// Try what this host can do to keep dynos apart, and say what to do for the rest
#[derive(clap::Args)]
pub(in crate::cli) struct Doctor {
    #[command(flatten)]
    file: File,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    part: &'static str,
    /// `None`: not tried, because what comes before it does not work.
    works: Option<bool>,
    /// What was found.
    found: String,
    /// What to do, where it does not work.
    advice: Option<String>,
    /// Whether the configuration asks for it.
    #[serde(skip)]
    is_wanted: bool,
}

impl Finding {
    fn yes(part: &'static str, found: impl Into<String>) -> Self {
        Self { part, works: Some(true), found: found.into(), advice: None, is_wanted: true }
    }

    fn no(part: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let (found, advice) = (found.into(), Some(advice.into()));
        Self { part, works: Some(false), found, advice, is_wanted: true }
    }

    fn not_tried(part: &'static str) -> Self {
        Self { part, works: None, found: "not tried".into(), advice: None, is_wanted: true }
    }
}

impl Doctor {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let config = self.file.load()?;
        let findings = examine(&config);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&findings)?);
        } else {
            print!("{}", table(&findings));
        }
        let is_well = |finding: &Finding| finding.works == Some(true) || !finding.is_wanted;
        let well = findings.iter().all(is_well);
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn examine(config: &Config) -> Vec<Finding> {
    let mut network = None;
    let mut findings = if rustix::process::geteuid().is_root() {
        network = Some(try_network(config.dynos.addresses));
        let disk = try_sandbox(&config.state_dir, Upper::Disk);
        let memory = Upper::Memory(limits::UPPER_BYTES);
        let either = disk.clone().or_else(|_| try_sandbox(&config.state_dir, memory));
        of_sandbox(disk.err().as_ref(), &either)
    } else {
        without_root()
    };
    let is_wanted = config.dynos.network == NetworkWanted::Private;
    let of_network = of_network(network, overlap(config.dynos.addresses), unreached_resolver());
    findings.extend(of_network.map(|finding| Finding { is_wanted, ..finding }));
    findings.push(control_groups(Path::new("/sys/fs/cgroup")));
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    findings.push(users(&config.dynos.uids, &text("/etc/passwd"), &text("/etc/subuid")));
    let path = env::var_os("PATH").unwrap_or_default();
    findings.push(interpreters(env::split_paths(&path).collect(), &config.dynos.expose));
    findings
}

const ROOT: &str = "root";
const NAMESPACES: &str = "namespaces";
const FILES: &str = "files";
const DISK: &str = "/app on disk";
const OWNERS: &str = "app's files";
const PRIVILEGES: &str = "privileges";
const NETWORK: &str = "network";
const OUTBOUND: &str = "outbound";
const NAMES: &str = "names";

fn without_root() -> Vec<Finding> {
    let advice = "start it as root: without that dynos are processes of its own user";
    let mut findings = vec![Finding::no(ROOT, "dynomesh is not root", advice)];
    findings.extend([NAMESPACES, FILES, DISK, OWNERS, PRIVILEGES].map(Finding::not_tried));
    findings
}

/// What the trials say: why what is written to /app could not be kept on disk, and what came of the best way.
fn of_sandbox(disk: Option<&TrialError>, best: &Result<Trial, TrialError>) -> Vec<Finding> {
    let container = "in a container it takes CAP_SYS_ADMIN and neither seccomp nor AppArmor in the way: docker run --privileged";
    let parts = [
        (Part::Namespaces, NAMESPACES, "processes, mounts and names of its own", container),
        (
            Part::Root,
            FILES,
            "a root of its own",
            "it takes Linux 5.12; in a container also --privileged",
        ),
        (Part::App, DISK, "what a dyno writes to /app", "it takes overlayfs (modprobe overlay)"),
        (
            Part::Privileges,
            PRIVILEGES,
            "a user of its own, no capabilities, fewer system calls",
            "it takes a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ];
    let refused = best.as_ref().err();
    let mut findings = vec![Finding::yes(ROOT, "dynos can be other users' processes")];
    for (part, name, found, advice) in parts {
        findings.push(match refused {
            Some(error) if error.part == part => Finding::no(name, &error.reason, advice),
            Some(error) if error.part < part => Finding::not_tried(name),
            _ => Finding::yes(name, found),
        });
    }
    if let (Ok(_), Some(error)) = (best, disk) {
        let advice = "put [state] dir on ext4, xfs or btrfs; until then it is kept in memory";
        findings[3] = Finding::no(DISK, &error.reason, advice);
    }
    findings.insert(4, owners(best));
    findings
}

/// What a trial says of networks of dynos' own; `overlap`: who else has the addresses, `resolver`: why no names are found.
fn of_network(
    trial: Option<Result<NetworkTrial, String>>,
    overlap: Option<String>,
    resolver: Option<String>,
) -> [Finding; 3] {
    let outbound = match trial {
        None => return [NETWORK, OUTBOUND, NAMES].map(Finding::not_tried),
        Some(Err(reason)) => {
            let advice = "it takes a kernel with network namespaces and veth (modprobe veth); until then network = \"host\"";
            let network = Finding::no(NETWORK, reason, advice);
            return [network, Finding::not_tried(OUTBOUND), Finding::not_tried(NAMES)];
        }
        Some(Ok(NetworkTrial { outbound })) => outbound,
    };
    let network = match overlap {
        None => Finding::yes(NETWORK, "of its own, with network = \"private\""),
        Some(other) => Finding::no(
            NETWORK,
            format!("[dynos] addresses are those of another network of this host: {other}"),
            "choose addresses that nobody uses: [dynos] addresses",
        ),
    };
    let outbound = match outbound {
        Ok(()) => Finding::yes(OUTBOUND, "dynos in such networks reach what is beyond this host"),
        Err(reason) => Finding::no(
            OUTBOUND,
            reason,
            "install nftables (apt install nftables), on a kernel with nf_tables, and let it write to /proc/sys; until then dynos in such networks reach nothing beyond this host",
        ),
    };
    let names = match resolver {
        None => Finding::yes(NAMES, "dynos in such networks reach a name server"),
        Some(reason) => Finding::no(
            NAMES,
            reason,
            "name a server in /etc/resolv.conf that is not on the loopback",
        ),
    };
    [network, outbound, names]
}

fn owners(best: &Result<Trial, TrialError>) -> Finding {
    match best {
        Ok(Trial { owners_mapped: true }) => Finding::yes(OWNERS, "belong to the dyno's user"),
        Ok(Trial { owners_mapped: false }) => Finding::no(
            OWNERS,
            "id-mapped mounts are refused: a dyno reads only what everybody may read, and changes nothing that is there",
            "it takes Linux 5.19 and apps on ext4, xfs or btrfs; until then make the files readable for all",
        ),
        Err(_) => Finding::not_tried(OWNERS),
    }
}

/// Tries to make a group in `root`, where the host has its control groups.
fn control_groups(root: &Path) -> Finding {
    const PART: &str = "control groups";
    const NEEDED: [&str; 4] = ["memory", "cpu", "pids", "freezer"];
    let unified = fs::read_to_string(root.join("cgroup.controllers")).ok();
    let (version, missing, parent) = match &unified {
        Some(controllers) => {
            let there = |name: &str| controllers.split_whitespace().any(|it| it == name);
            // Its groups can be frozen without a controller for that.
            let missing = NEEDED.iter().filter(|name| **name != "freezer" && !there(name));
            ("version 2", missing.copied().collect::<Vec<_>>(), root.to_owned())
        }
        None => {
            let missing = NEEDED.iter().filter(|name| !root.join(name).is_dir());
            ("version 1", missing.copied().collect(), root.join("memory"))
        }
    };
    if !missing.is_empty() {
        let found = format!("{version}, without {}", missing.join(", "));
        return Finding::no(PART, found, "have the kernel started with these controllers");
    }
    let trial = parent.join(format!("dynomesh-doctor-{}", std::process::id()));
    match fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial)) {
        Ok(()) => Finding::yes(PART, format!("{version}: {}", NEEDED.join(", "))),
        Err(error) => {
            let found = format!("{version}: make {}: {error}", trial.display());
            let advice = "dynomesh must be root and may write there; in a container --cgroupns=private and --privileged";
            Finding::no(PART, found, advice)
        }
    }
}

/// Whether the users that are lent are nobody's.
fn users(uids: &RangeInclusive<u32>, passwd: &str, subuid: &str) -> Finding {
    let (first, last) = (*uids.start(), *uids.end());
    let number = |text: Option<&str>| text.and_then(|it| it.parse::<u32>().ok());
    let person = passwd.lines().find_map(|line| {
        let uid = number(line.split(':').nth(2))?;
        uids.contains(&uid).then(|| format!("{} of /etc/passwd is {uid}", name_of(line)))
    });
    let range = subuid.lines().find_map(|line| {
        let mut fields = line.split(':').skip(1);
        let start = number(fields.next())?;
        let end = start.checked_add(number(fields.next())?)?;
        (start <= last && first < end)
            .then(|| format!("{} of /etc/subuid has {start}-{}", name_of(line), end - 1))
    });
    match person.or(range) {
        None => Finding::yes("users", format!("{first}-{last} are nobody else's")),
        Some(found) => Finding::no("users", found, "choose a range that is nobody's: [dynos] uids"),
    }
}

fn name_of(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

/// Whether what Procfiles usually begin with is where dynos see it.
fn interpreters(path: Vec<PathBuf>, exposed: &[PathBuf]) -> Finding {
    const PART: &str = "interpreters";
    const USUAL: [&str; 7] = ["sh", "bash", "python3", "node", "ruby", "java", "php"];
    let mut seen = Vec::new();
    for name in USUAL {
        let places = path.iter().map(|dir| dir.join(name));
        let Some(place) = places.into_iter().find_map(|place| place.canonicalize().ok()) else {
            continue;
        };
        let system = SYSTEM.iter().any(|dir| place.starts_with(dir));
        if !system && !exposed.iter().any(|dir| place.starts_with(dir)) {
            let dir = to_expose(&place);
            let found = format!("{name} is {}, which dynos do not see", place.display());
            let advice = format!("[dynos] expose = [{:?}]", dir.display().to_string());
            return Finding::no(PART, found, advice);
        }
        seen.push(name);
    }
    Finding::yes(PART, seen.join(", "))
}

/// The directory around an interpreter that has all that belongs to it: in a home it is the first one.
fn to_expose(place: &Path) -> PathBuf {
    let parts = if place.starts_with("/home") { 4 } else { 3 };
    place.components().take(parts).collect()
}

fn table(findings: &[Finding]) -> String {
    let mut out = String::new();
    for Finding { part, works, found, advice, is_wanted: _ } in findings {
        let works = match works {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        out.push_str(&format!("{part:<15} {works:<4} {found}\n"));
        if let Some(advice) = advice {
            out.push_str(&format!("{:<21}{advice}\n", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(part: Part) -> TrialError {
        TrialError { part, reason: "step: no".into(), errno: None }
    }

    fn works(findings: &[Finding]) -> Vec<(&str, Option<bool>)> {
        findings.iter().map(|finding| (finding.part, finding.works)).collect()
    }

    #[test]
    fn what_comes_after_a_part_that_is_refused_was_not_tried() {
        let (yes, no) = (Some(true), Some(false));
        let check = |disk: Option<&TrialError>, best, expected: [Option<bool>; 6]| {
            let parts = [ROOT, NAMESPACES, FILES, DISK, OWNERS, PRIVILEGES];
            let expected = parts.into_iter().zip(expected).collect::<Vec<_>>();
            assert_eq!(works(&of_sandbox(disk, &best)), expected);
        };
        check(None, Ok(Trial { owners_mapped: true }), [yes; 6]);
        check(None, Ok(Trial { owners_mapped: false }), [yes, yes, yes, yes, no, yes]);
        let app = refused(Part::App);
        check(Some(&app), Ok(Trial { owners_mapped: true }), [yes, yes, yes, no, yes, yes]);
        check(Some(&app), Err(app.clone()), [yes, yes, yes, no, None, None]);
        let error = refused(Part::Namespaces);
        check(Some(&error), Err(error.clone()), [yes, no, None, None, None, None]);
        assert_eq!(works(&without_root())[0], (ROOT, no));
    }

    #[test]
    fn networks_are_told_part_by_part() {
        let (yes, no) = (Some(true), Some(false));
        let check = |trial, overlap: Option<&str>, resolver: Option<&str>, expected| {
            let findings = of_network(trial, overlap.map(Into::into), resolver.map(Into::into));
            let expected = [NETWORK, OUTBOUND, NAMES].into_iter().zip::<[_; 3]>(expected);
            assert_eq!(works(&findings), expected.collect::<Vec<_>>());
        };
        let outbound = |outbound| Some(Ok(NetworkTrial { outbound }));
        check(outbound(Ok(())), None, None, [yes, yes, yes]);
        check(outbound(Err("there is no nft".into())), None, None, [yes, no, yes]);
        check(outbound(Ok(())), Some("10.0.0.0/8 of eth0"), Some("127.0.0.1"), [no, yes, no]);
        check(Some(Err("make dmtry1: not supported".into())), None, None, [no, None, None]);
        check(None, None, None, [None, None, None]);
    }

    #[test]
    fn users_that_are_somebodys_are_named() {
        let check = |passwd: &str, subuid: &str, expected: &str| {
            assert_eq!(users(&(200_000..=265_535), passwd, subuid).found, expected);
        };
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n";
        check(passwd, "me:100000:65536\n", "200000-265535 are nobody else's");
        check("me:x:200001:1::/:/bin/sh", "", "me of /etc/passwd is 200001");
        check(passwd, "a:1:2\nyou:165536:65536\n", "you of /etc/subuid has 165536-231071");
        check(passwd, "you:265535:1\n", "you of /etc/subuid has 265535-265535");
        check(passwd, "you:265536:1\nme:134464:65536\n", "200000-265535 are nobody else's");
    }

    #[test]
    fn an_interpreter_that_dynos_do_not_see_is_named_with_what_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::write(dir.join("ruby"), "").unwrap();
        let path = vec![dir.clone(), "/nowhere".into()];
        let finding = interpreters(path.clone(), &[]);
        assert_eq!(finding.works, Some(false));
        assert!(finding.found.starts_with("ruby is "), "{}", finding.found);
        assert_eq!(interpreters(path, &[dir]), Finding::yes("interpreters", "ruby"));
        let check = |place: &str, expected: &str| {
            assert_eq!(to_expose(Path::new(place)), Path::new(expected), "{place}");
        };
        check("/root/.pyenv/shims/python3", "/root/.pyenv");
        check("/home/me/.nvm/v20/bin/node", "/home/me/.nvm");
        check("/srv/tools/bin/node", "/srv/tools");
    }

    #[test]
    fn control_groups_are_tried_by_making_one() {
        let dir = tempfile::tempdir().unwrap();
        let of = || control_groups(dir.path());
        assert_eq!(of().found, "version 1, without memory, cpu, pids, freezer");
        for name in ["memory", "cpu", "pids", "freezer"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(of(), Finding::yes("control groups", "version 1: memory, cpu, pids, freezer"));
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        assert_eq!(of().found, "version 2, without pids");
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        assert_eq!(of().works, Some(true));
        assert_eq!(fs::read_dir(dir.path().join("memory")).unwrap().count(), 0);
    }

    #[test]
    fn the_table_says_what_to_do() {
        let findings = [
            Finding::yes("a", "fine"),
            Finding::no("b", "bad", "mend it"),
            Finding::not_tried("c"),
        ];
        let expected = "\
a               yes  fine
b               no   bad
                     mend it
c               -    not tried
";
        assert_eq!(table(&findings), expected);
    }
}
