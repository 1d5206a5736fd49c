//! Isolation, from inside: dynos that try to reach what is not theirs, and ordinary programs that must not notice.
//!
//! Only root can isolate: without root, or without CAP_SYS_ADMIN as in most containers, these tests say so and
//! pass. `.ci/run` is root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::{Mesh, Setup, becomes_true, testapp};

/// Cool-offs short enough to be waited for.
const COOL: &str = "timeouts = { cool_off = \"100ms\", cool_off_max = \"200ms\", exit = \"1s\" }";
const WORKER: &str = "formation = { worker = 1 }";

/// Whether this test can be made here; says so where not.
pub(crate) fn cannot_isolate() -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let may = rustix::process::geteuid().is_root() && effective_capabilities() & CAP_SYS_ADMIN != 0;
    if !may {
        eprintln!("skipped: only root with CAP_SYS_ADMIN can isolate dynos");
    }
    !may
}

pub(crate) fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap()
}

/// An app whose worker runs a script, in a directory that every user may enter, so that only isolation is in
/// the way.
fn script(setup: Setup, name: &str, script: &str, lines: &str) -> Setup {
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(setup.dir(), open).unwrap();
    let setup = setup.procfile(name, "worker: sh ./script\n", &format!("{lines}\n{COOL}"));
    fs::write(setup.dir().join(name).join("script"), script).unwrap();
    setup
}

/// What a script prints in an isolated dyno, until it says `done`; it may have a line for each question.
async fn printed(setup: Setup, text: &str) -> (Mesh, Vec<String>) {
    let text = format!("{text}\necho done\nexec sleep 1000\n");
    let mesh = script(setup, "shop", &text, WORKER).start().await;
    mesh.says("app[worker.1]", "done").await;
    let lines = mesh.lines().into_iter().filter(|line| line.source == "app[worker.1]");
    let lines = lines.filter(|line| line.app == "shop").map(|line| line.message).collect();
    (mesh, lines)
}

/// Runs a script, and expects these lines of it.
#[track_caller]
fn says(printed: &[String], expected: &[&str]) {
    assert_eq!(printed[..printed.len() - 1], *expected, "{printed:#?}");
}

/// `yes` or `no` for each of these commands.
pub(crate) fn tries(commands: &[impl AsRef<str>]) -> String {
    let line =
        |command: &str| format!("if ({command}) >/dev/null 2>&1; then echo 'yes: {command}'; fi\n");
    commands.iter().map(|command| line(command.as_ref())).collect()
}

// ---- files ------------------------------------------------------------------------------------------------

/// Taken for what the disk cannot do, what dynos write to /app would be in memory for the daemon's whole life.
#[tokio::test]
async fn signals_in_the_middle_of_the_trial_do_not_decide() {
    if cannot_isolate() {
        return;
    }
    // Ignored until the daemon hears them, which is before it tries.
    let signals = "(until test -e listening; do kill -HUP $$ || exit; sleep 0.001; done)";
    let before = format!("trap '' HUP; {signals} >/dev/null 2>&1 & exec");
    let setup = Setup::new().isolated(&[&testapp()]).procfile("shop", "web: TESTAPP\n", "");
    let mesh = setup.before(&before).start().await;
    fs::write(mesh.path("listening"), "").unwrap();
    let said = mesh.lines().into_iter().map(|line| line.message).collect::<Vec<_>>();
    let has = |text: &str| said.iter().any(|line| line.contains(text));
    assert!(has("isolation: each dyno has its own") && !has("in memory"), "{said:#?}");
}

/// What a trial that was killed had mounted says that nobody may mount it again: taken for what the host cannot do, the
/// dynos of the next daemon would not be isolated.
#[tokio::test]
async fn a_trial_that_was_killed_is_in_nobodys_way() {
    if cannot_isolate() {
        return;
    }
    let setup = Setup::new().isolated(&[&testapp()]).procfile("shop", "web: TESTAPP\n", "");
    let trial = setup.dir().join("state/trial");
    fs::create_dir_all(trial.join("work/work/incompat/volatile")).unwrap();
    fs::create_dir_all(trial.join("app")).unwrap();
    let mesh = setup.start().await;
    becomes_true("it to answer", async || mesh.get("/").await.status == 200).await;
    assert!(!mesh.lines().iter().any(|line| line.message.contains("dynos are not isolated")));
    assert!(!trial.exists());
}

#[tokio::test]
async fn a_dyno_sees_neither_other_apps_nor_the_state_nor_the_configuration() {
    if cannot_isolate() {
        return;
    }
    // All of them lie in what is exposed, and everybody may read them: nothing but hiding is in the way.
    let setup = Setup::new();
    let dir = setup.dir().to_owned();
    let setup = script(setup, "other", "exec sleep 1000", WORKER).isolated(&[&dir]);
    fs::write(dir.join("other/secret"), "hunter2").unwrap();
    fs::create_dir_all(dir.join("state")).unwrap();
    fs::write(dir.join("state/secret"), "hunter2").unwrap();
    let files = ["other/secret", "state/secret", "dynomesh.toml"].map(|name| dir.join(name));
    let cats = files.map(|file| format!("cat {}", file.display()));
    let lists = ["other", "state"].map(|name| format!("ls {}", dir.join(name).display()));
    let commands = [&cats[..], &lists].concat();
    let own = format!("cat {}", dir.join("shop/Procfile").display());
    let (_mesh, printed) = printed(setup, &format!("{}{own}", tries(&commands))).await;
    says(&printed, &["worker: sh ./script"]);
}

/// Who makes a link chooses what it leads to, and must not choose what only somebody else reads.
#[tokio::test]
async fn a_link_of_another_user_makes_nobodys_files_the_dynos() {
    if cannot_isolate() {
        return;
    }
    for (maker, expected) in [(0, "yes: cat secret"), (12_345, "no")] {
        let text = format!("{}cat secret >/dev/null 2>&1 || echo no", tries(&["cat secret"]));
        let setup = Setup::new().isolated(&[]);
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(setup.dir(), open).unwrap();
        let dir = setup.dir().to_owned();
        fs::create_dir(dir.join("real")).unwrap();
        fs::write(dir.join("real/Procfile"), "worker: sh ./script\n").unwrap();
        fs::write(dir.join("real/script"), format!("{text}\necho done\nexec sleep 1000")).unwrap();
        fs::write(dir.join("real/secret"), "hunter2").unwrap();
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(dir.join("real/secret"), private).unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        std::os::unix::fs::lchown(dir.join("link"), Some(maker), None).unwrap();
        let mesh = setup.app("shop", &format!("dir = \"link\"\n{WORKER}\n{COOL}")).start().await;
        mesh.says("app[worker.1]", "done").await;
        let lines = mesh.lines().into_iter().filter(|line| line.source == "app[worker.1]");
        let printed = lines.map(|line| line.message).collect::<Vec<_>>();
        assert_eq!(printed, [expected, "done"], "a link of {maker}");
    }
}

/// As where somebody keeps the configuration in the app's own directory.
#[tokio::test]
async fn an_app_around_everything_still_sees_only_itself() {
    if cannot_isolate() {
        return;
    }
    let files = ["other/secret", "state/secret", "dynomesh.toml"];
    let text =
        format!("{}ls | tr '\\n' ' '", tries(&files.map(|file| format!("grep -q . {file}"))));
    let text = format!("{text}; echo; touch new && ls new; echo done; exec sleep 1000");
    let setup = script(Setup::new().isolated(&[]), "other", "exec sleep 1000", WORKER);
    fs::write(setup.dir().join("other/secret"), "hunter2").unwrap();
    fs::create_dir_all(setup.dir().join("state")).unwrap();
    fs::write(setup.dir().join("state/secret"), "hunter2").unwrap();
    let setup = setup.app("shop", &format!("dir = \".\"\n{WORKER}\n{COOL}"));
    fs::write(setup.dir().join("Procfile"), "worker: sh ./script\n").unwrap();
    fs::write(setup.dir().join("script"), text).unwrap();
    let mesh = setup.start().await;
    mesh.says("app[worker.1]", "done").await;
    let printed = mesh.lines().into_iter().filter(|line| line.app == "shop");
    let printed = printed.filter(|line| line.source == "app[worker.1]").map(|line| line.message);
    let expected = ["Procfile dynomesh.toml other script state ", "new", "done"];
    assert_eq!(printed.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn homes_and_mounts_and_logs_of_the_host_are_not_there() {
    if cannot_isolate() {
        return;
    }
    let (mesh, printed) = printed(
        Setup::new().isolated(&[]),
        "for dir in /home /mnt /srv /var/log /var/lib /media /boot; do ls -A $dir 2>/dev/null; done; ls /root | wc -l",
    )
    .await;
    // The binary's own directory may be all that there is of /root.
    says(&printed, &["0"]);
    drop(mesh);
}

#[tokio::test]
async fn a_dyno_cannot_write_to_the_host() {
    if cannot_isolate() {
        return;
    }
    let commands = [
        "touch /etc/x",
        "touch /usr/x",
        "touch /usr/bin/x",
        "touch /bin/x",
        "touch /opt/x",
        "touch /x",
        "touch /var/x",
        "touch /dev/x",
        "touch /sys/x",
        "touch /root/x",
        "touch /home/x",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo x > /proc/sysrq-trigger",
        "chmod 777 /etc/passwd",
        "echo x >> /etc/passwd",
        "echo x >> /etc/hosts",
        "rm -f /etc/hostname",
        "mknod /tmp/x b 8 0",
        "cat /etc/shadow",
        "cat /proc/kcore",
        "dmesg",
        "cat /dev/mem",
    ];
    let (_mesh, printed) = printed(Setup::new().isolated(&[]), &tries(&commands)).await;
    says(&printed, &[]);
}

#[tokio::test]
async fn what_a_dyno_writes_to_its_app_is_gone_when_it_is() {
    if cannot_isolate() {
        return;
    }
    let text = "cat kept; echo changed > kept; ls new 2>/dev/null; touch new; rm Procfile; ls | tr '\\n' ' '; echo; exit 1";
    let setup = script(Setup::new().isolated(&[]), "shop", text, WORKER);
    let kept = setup.dir().join("shop/kept");
    fs::write(&kept, "as deployed\n").unwrap();
    // Only its owner may write, or read, and that is not the dyno's user on the disk.
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).unwrap();
    let mesh = setup.start().await;
    mesh.says_times("app[worker.1]", "as deployed", 3).await;
    mesh.says_times("app[worker.1]", "kept new script", 2).await;
    assert_eq!(fs::read_to_string(&kept).unwrap(), "as deployed\n");
    assert!(mesh.path("shop/Procfile").exists() && !mesh.path("shop/new").exists());
    assert_eq!(fs::metadata(&kept).unwrap().uid(), 0);
}

#[tokio::test]
async fn tmp_is_the_dynos_own_and_ends_somewhere() {
    if cannot_isolate() {
        return;
    }
    let on_host = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "ls {} 2>/dev/null\ntouch /tmp/mine /var/tmp/too /run/pid && echo written
        dd if=/dev/zero of=/tmp/big bs=1M count=600 2>&1 | grep -o 'No space left on device'; rm /tmp/big
        dd if=/dev/zero of=/dev/shm/big bs=1M count=70 2>&1 | grep -o 'No space left on device'; rm /dev/shm/big",
        on_host.path().display(),
    );
    let (mesh, printed) = printed(Setup::new().isolated(&[]), &text).await;
    says(&printed, &["written", "No space left on device", "No space left on device"]);
    assert!(!Path::new("/tmp/mine").exists() && !Path::new("/run/pid").exists());
    drop(mesh);
}

// ---- processes --------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dyno_sees_and_signals_its_own_processes_only() {
    if cannot_isolate() {
        return;
    }
    let setup = Setup::new().isolated(&[]);
    let setup = script(setup, "other", "echo ready; exec sleep 1000", WORKER);
    // The shell expands the names before it starts anybody; signalling everybody spares it itself.
    let text = "set -- /proc/[0-9]*; echo $#; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[s]leep 1000'
        sleep 1000 & kill -9 -1; wait $! 2>/dev/null; echo $?; kill -9 1 2>/dev/null || echo refused";
    let (mesh, printed) = printed(setup, text).await;
    // Its init and itself.
    says(&printed, &["2", "0", "137", "refused"]);
    mesh.says("app[worker.1]", "ready").await;
    let other =
        |line: &crate::support::Line| line.app == "other" && line.message.contains("exited");
    assert!(!mesh.lines().iter().any(other), "the neighbour lives on");
}

#[tokio::test]
async fn a_fork_bomb_stops_at_its_limit_and_its_neighbour_serves_on() {
    if cannot_isolate() {
        return;
    }
    let testapp = testapp();
    let setup = Setup::new().isolated(&[&testapp]).procfile(
        "web",
        "web: TESTAPP\n",
        "domains = [\"shop.localhost\"]",
    );
    let text = "n=0; while [ $n -lt 100000 ]; do sleep 1000 & n=$((n + 1)); done; echo never";
    let mesh = script(setup, "bomb", text, WORKER).start().await;
    mesh.says("app[worker.1]", "fork").await;
    for _ in 0..20 {
        assert_eq!(mesh.get("/").await.status, 200);
    }
    assert!(!mesh.lines().iter().any(|line| line.message == "never"));
}

/// Programs read there how much memory they have; twice the quota of `basic` is where the kernel stops them.
/// Nobody's size is held by `cpuset`, so that there is one group for all; Java wants to see it all the same.
#[tokio::test]
async fn a_dyno_sees_its_own_control_groups_and_no_others() {
    if cannot_isolate() {
        return;
    }
    let text = "cd /sys/fs/cgroup
        cat memory.max memory/memory.limit_in_bytes 2>/dev/null; find . -mindepth 2 -type d | grep -v '^./cpuset/'
        grep -E 'memory|^0::' /proc/self/cgroup | grep -cv ':/$'";
    let (mesh, printed) = printed(Setup::new().isolated(&[]), text).await;
    if mesh.lines().iter().any(|line| line.message.starts_with("dynos are not held to their sizes"))
    {
        eprintln!("skipped: there are no control groups here");
        return;
    }
    says(&printed, &["1073741824", "0"]);
}

// ---- privileges -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dyno_is_nobody_and_stays_so() {
    if cannot_isolate() {
        return;
    }
    let commands = [
        "unshare -U true",
        "unshare -m true",
        "unshare -p -f true",
        "unshare -n true",
        "chroot / true",
        "mount -t tmpfs x /tmp",
        "mount -o remount,rw /usr",
        "umount /tmp",
        "su -c true",
        "nsenter -t 1 -m true",
        "ls /proc/1/root/",
        "cat /proc/1/environ",
        "cat /proc/1/maps",
        "ulimit -c 1",
        "ulimit -n 100000",
        "date -s 2000-01-01",
        "hostname x",
    ];
    let status = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|^Seccomp:|Groups' /proc/self/status | tr -s '\\t ' ' '";
    let text = format!(
        "{}{status}\ntest $(id -u) = $(id -g) && id -un; grep core /proc/self/limits | tr -s ' '",
        tries(&commands)
    );
    let (_mesh, printed) = printed(Setup::new().isolated(&[]), &text).await;
    let none = "0000000000000000";
    let capabilities = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}: {none}"));
    let mut expected = vec!["Groups: "];
    expected.extend(capabilities.iter().map(String::as_str));
    expected.extend(["NoNewPrivs: 1", "Seccomp: 2", "dyno", "Max core file size 1 1 bytes "]);
    says(&printed, &expected);
}

#[tokio::test]
async fn each_dyno_is_another_user() {
    if cannot_isolate() {
        return;
    }
    let text = "id -u; exec sleep 1000";
    let mesh = script(Setup::new().isolated(&[]), "shop", text, "formation = { worker = 2 }");
    let mesh = mesh.start().await;
    let uid = async |source: &str| mesh.says(source, "2").await.message.parse::<u32>().unwrap();
    let (one, other) = (uid("app[worker.1]").await, uid("app[worker.2]").await);
    assert!(one != other && (200_000..=265_535).contains(&one), "{one} {other}");
}

#[tokio::test]
async fn calls_that_no_app_needs_are_refused() {
    if cannot_isolate() {
        return;
    }
    // Numbers by architecture: perf_event_open, keyctl, bpf, userfaultfd.
    let [perf, keyctl, bpf, userfaultfd] =
        if cfg!(target_arch = "x86_64") { [298, 250, 321, 323] } else { [241, 219, 280, 282] };
    // From Linux 5.1 on the same everywhere: io_uring_setup, clone3. ENOSYS is 38, EPERM is 1.
    let calls = [perf, keyctl, bpf, userfaultfd, 425, 435];
    let call = |number| {
        format!(
            "perl -e '$r = syscall({number}, 0, -3, 0, 0, 0); print $r < 0 ? $!+0 : 0, \"\\n\"'\n"
        )
    };
    let packet = "perl -MSocket -e 'socket(S, 17, SOCK_RAW, 0) or print $!+0, \"\\n\"'";
    let text = format!("{}{packet}", calls.map(call).concat());
    let (_mesh, printed) = printed(Setup::new().isolated(&[]), &text).await;
    // EAFNOSUPPORT is 97.
    says(&printed, &["1", "1", "1", "1", "38", "38", "97"]);
}

// ---- ordinary programs ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_shell_finds_what_it_expects() {
    if cannot_isolate() {
        return;
    }
    let text = "pwd; echo $HOME $USER; whoami; hostname | wc -c; grep -c \"$(hostname)\" /etc/hosts
        echo out > /dev/stdout; echo err > /dev/stderr; echo x > /dev/null; head -c 3 /dev/urandom | wc -c
        getent hosts localhost >/dev/null && echo localhost; test -r /etc/resolv.conf && echo resolver
        test -w /app && test -O script && echo mine; (sleep 0 & wait) && echo forked; ls /proc/self/fd >/dev/null && echo proc
        test -d /sys/class/net && echo sys; mktemp >/dev/null && echo tmp";
    let (_mesh, printed) = printed(Setup::new().isolated(&[]), text).await;
    let expected = [
        "/app",
        "/app dyno",
        "dyno",
        "37",
        "1",
        "out",
        "err",
        "3",
        "localhost",
        "resolver",
        "mine",
        "forked",
        "proc",
        "sys",
        "tmp",
    ];
    says(&printed, &expected);
}

#[tokio::test]
async fn the_example_app_is_served_by_a_binary_that_may_be_anywhere() {
    if cannot_isolate() {
        return;
    }
    let setup = Setup::new().isolated(&[]).procfile("shop", "web: exec \"$DYNOMESH\" hello\n", "");
    let mesh = setup.start().await;
    assert_eq!(mesh.get("/").await.status, 200);
}

#[tokio::test]
async fn an_app_is_also_where_it_is_on_the_host() {
    if cannot_isolate() {
        return;
    }
    let setup = Setup::new().isolated(&[]);
    let place = setup.dir().join("shop");
    let text = format!("echo x > {}/made; cat /app/made", place.display());
    let (_mesh, printed) = printed(setup, &text).await;
    says(&printed, &["x"]);
    assert!(!place.join("made").exists());
}

/// The interpreter of a home directory, as pyenv has it, behind a directory that is closed to others.
#[tokio::test]
async fn python_serves_from_a_home_directory_that_is_exposed() {
    if cannot_isolate() {
        return;
    }
    let Some(prefix) = python_prefix().await else {
        eprintln!("skipped: there is no python3");
        return;
    };
    let python = prefix.join("bin/python3");
    let procfile = format!("web: exec {} -m http.server $PORT\n", python.display());
    let mesh = Setup::new().isolated(&[&prefix]).procfile("shop", &procfile, "").start().await;
    assert_eq!(mesh.get("/Procfile").await.text(), procfile);
}

#[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
async fn python_prefix() -> Option<PathBuf> {
    let mut python = tokio::process::Command::new("python3");
    let output = python.args(["-c", "import sys; print(sys.base_prefix)"]).output().await.ok()?;
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

#[tokio::test]
async fn node_runs_with_threads() {
    if cannot_isolate() {
        return;
    }
    let text = "command -v node >/dev/null || { echo none; exit; }
        node -e 'const {Worker} = require(\"worker_threads\"); new Worker(\"require(`fs`).writeFileSync(`f`, `x`); console.log(`thread`)\", {eval: true}).on(\"exit\", () => console.log(\"end\"))'";
    let (_mesh, printed) = printed(Setup::new().isolated(&[]), text).await;
    assert!(printed == ["none", "done"] || printed == ["thread", "end", "done"], "{printed:?}");
}

// ---- where it cannot be -----------------------------------------------------------------------------------

#[tokio::test]
async fn a_host_that_cannot_isolate_runs_dynos_all_the_same_and_says_why() {
    if cannot_isolate() {
        return;
    }
    let bound = "exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin";
    let setup = Setup::new().isolated(&[]).before(bound).procfile("shop", "web: TESTAPP\n", "");
    let mesh = setup.start().await;
    assert_eq!(mesh.get("/").await.status, 200);
    mesh.says(
        "dynomesh[supervisor]",
        "isolation: none, since this host cannot (leave the host's namespaces: ",
    )
    .await;
}

#[tokio::test]
async fn isolation_can_be_given_up() {
    let mesh = Setup::new().procfile("shop", "web: TESTAPP\n", "").start().await;
    assert_eq!(mesh.get("/").await.status, 200);
    mesh.says("dynomesh[supervisor]", "isolation: none, as [dynos] isolation says").await;
}

#[tokio::test]
async fn the_doctor_tells_what_this_host_can() {
    if cannot_isolate() {
        return;
    }
    let setup = Setup::new().isolated(&[]);
    let (_, printed) = setup.run("doctor --json").await;
    let findings: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let works = |part: &str| {
        let findings = findings.as_array().unwrap();
        findings.iter().find(|it| it["part"] == part).unwrap()["works"].clone()
    };
    for part in ["root", "namespaces", "files", "privileges", "users"] {
        assert_eq!(works(part), true, "{printed}");
    }
    let bound = "exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin";
    let (status, printed) = setup.before(bound).run("doctor").await;
    assert_eq!(status.code(), Some(1));
    assert!(printed.contains("namespaces      no   leave the host's namespaces: "), "{printed}");
    assert!(printed.contains("docker run --privileged"), "{printed}");
}

/// A port that is lent is held by nobody until its dyno listens.
#[tokio::test]
async fn whoever_takes_the_port_of_an_isolated_dyno_gets_none_of_its_requests() {
    if cannot_isolate() {
        return;
    }
    let setup = Setup::new();
    // Bound, so nobody else gets it; who connects is refused until somebody listens.
    let gate = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    gate.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let gate_port = gate.local_addr().unwrap().as_socket().unwrap().port();
    let wait = format!("until (: < /dev/tcp/127.0.0.1/{gate_port}); do sleep 0.05; done");
    let procfile = format!("web: echo port $PORT; {wait} 2>/dev/null; exec TESTAPP\n");
    let setup = setup.isolated(&[&testapp()]).procfile("shop", &procfile, COOL);
    let mesh = setup.start().await;
    let port = mesh.says("app[web.1]", "port ").await.message;
    let number = port.rsplit(' ').next().unwrap().parse::<u16>().unwrap();
    let _stranger = std::net::TcpListener::bind(("127.0.0.1", number)).unwrap();
    let expected = format!("Somebody else (user 0) listens on its port {number}");
    mesh.says("heroku[web.1]", &expected).await;
    mesh.says("heroku[web.1]", "State changed from starting to crashed").await;
    gate.listen(16).unwrap();
    assert_eq!(mesh.get("/").await.text(), "web.1");
    let mut ports = mesh.lines().into_iter().filter(|line| line.message.starts_with("port "));
    assert!(ports.next_back().unwrap().message != port, "another port");
}

#[tokio::test]
async fn isolated_dynos_outlive_a_killed_daemon_and_keep_their_users() {
    if cannot_isolate() {
        return;
    }
    let text = "echo user $(id -u); exec sleep 1000";
    let mut mesh = script(Setup::new().isolated(&[]), "shop", text, WORKER).start().await;
    let first = mesh.says("app[worker.1]", "user 2").await.message;
    mesh.signal(Signal::KILL);
    mesh.ended().await;
    let mut mesh = mesh.start_again().await;
    mesh.says("heroku[worker.1]", "Adopted, up").await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        script(setup, "shop", text, "formation = { worker = 2 }")
    })
    .await;
    let second = mesh.says("app[worker.2]", "user 2").await.message;
    assert_ne!(second, first);
}

/// Nothing of an isolated dyno is left: no process, no mount, no directory.
#[tokio::test]
async fn a_stop_leaves_nothing_of_isolated_dynos() {
    if cannot_isolate() {
        return;
    }
    let text = "sleep 1000 & setsid sleep 1000 & echo up; exec sleep 1000";
    let mut mesh = script(Setup::new().isolated(&[]), "shop", text, WORKER).start().await;
    mesh.says("app[worker.1]", "up").await;
    assert!(!mesh.dynos().is_empty());
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    becomes_true("every process to be gone", async || mesh.dynos().is_empty()).await;
    let left = fs::read_dir(mesh.path("state/dynos")).unwrap().count();
    assert_eq!(left, 0);
}
