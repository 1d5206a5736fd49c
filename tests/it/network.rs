//! Networks of dynos' own, from inside and from outside.
//!
//! Each test is in a network of its own, too, with its daemon: what the host has for dynos, from forwarding to the
//! firewall, is that network's. Only root can do this; without, these tests say so and pass.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::process::Output;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use dynomesh::init::{Netlink, NetworkRequest};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

use crate::isolation::{cannot_isolate, tries};
use crate::support::{Known, Mesh, Setup, becomes_true, within};

const COOL: &str = "timeouts = { cool_off = \"100ms\", cool_off_max = \"200ms\", exit = \"1s\" }";
const WEB: &str = "web: BIND=0.0.0.0 TESTAPP\n";

/// Leads this thread, and what it starts from now on, into a network with nothing but a loopback. `false`: it may not.
pub(crate) fn in_own_network() -> bool {
    if cannot_isolate() {
        return false;
    }
    leave_network();
    Netlink::open().unwrap().ask(&NetworkRequest::SetUp(1)).unwrap();
    true
}

#[expect(deprecated, reason = "its successor is unsafe, for descriptors that are not shared")]
fn leave_network() {
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
}

/// The interfaces that this thread sees.
fn interfaces() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table.lines().skip(2).map(|line| line.split(':').next().unwrap().trim());
    names.map(str::to_owned).collect()
}

fn routes() -> usize {
    fs::read_to_string("/proc/thread-self/net/route").unwrap().lines().count() - 1
}

/// `None`: there is no nft here.
async fn tables() -> Option<String> {
    let output = run_on_host("nft", &["list", "ruleset"]).await?;
    Some(String::from_utf8(output.stdout).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
async fn run_on_host(program: &str, args: &[&str]) -> Option<Output> {
    match tokio::process::Command::new(program).args(args).output().await {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        output => Some(output.unwrap()),
    }
}

/// The app `shop`, in a directory that every user may enter.
fn shop(procfile: &str, lines: &str) -> Setup {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new().private();
    fs::set_permissions(setup.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let setup = setup.procfile("shop", procfile, &format!("{lines}\n{COOL}"));
    for (name, text) in [("reach", REACH), ("meet", MEET)] {
        fs::write(setup.dir().join("shop").join(name), text).unwrap();
    }
    setup
}

/// What is known once every dyno is up, so many.
async fn all_up(mesh: &Mesh, count: usize) -> Vec<Known> {
    let all = async || {
        let known = mesh.known().await;
        let up = known.iter().filter(|dyno| dyno.state == "up" && dyno.pid.is_some()).count();
        (up == count && known.len() == count).then_some(known)
    };
    becomes_true("every dyno to be up", async || all().await.is_some()).await;
    all().await.unwrap()
}

/// What a one-off dyno prints.
async fn printed(mesh: &Mesh, command: &str) -> String {
    let ran = mesh.command(&["run", "-a", "shop", command]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.out
}

/// `perl reach ADDRESS PORT [on INTERFACE | via ADDRESS]`: ends well where somebody accepts, on that wire whatever the
/// routes say (SO_BINDTODEVICE), or by way of somebody who may pass it on (RFC 791, loose source route; newer kernels ask
/// for privileges). So it does where it could not try, which nobody is to take for a no.
const REACH: &str = r#"use Socket;
use Errno;
my ($ip, $port, $how, $what) = @ARGV;
socket(S, AF_INET, SOCK_STREAM, 0) or exit 0;
setsockopt(S, SOL_SOCKET, 25, "$what\0") or exit 0 if $how eq "on";
my $route = pack("CCCa4a4C", 131, 11, 4, inet_aton($what), inet_aton($ip), 0) if $how eq "via";
setsockopt(S, 0, 4, $route) or exit($!{EPERM} ? 1 : 0) if $how eq "via";
$SIG{ALRM} = sub { exit 1 };
alarm 3;
connect(S, sockaddr_in($port, inet_aton($ip))) or exit 1;
"#;

/// `perl meet`: ends well where somebody listens on the abstract socket. `perl meet first`: does so itself.
const MEET: &str = r#"use Socket;
$| = 1;
my $name = pack_sockaddr_un("\0dynomesh-test-of-networks");
socket(S, AF_UNIX, SOCK_STREAM, 0) or exit 0;
connect(S, $name) or exit 1 unless @ARGV;
exit 0 unless @ARGV;
bind(S, $name) && listen(S, 5) or die $!;
print "listening\n";
print "met\n" if system("perl meet") == 0;
sleep 1000;
"#;
const ABSTRACT: &str = "dynomesh-test-of-networks";

fn reach(addr: SocketAddr) -> String {
    format!("perl reach {} {}", addr.ip(), addr.port())
}

/// Both ends of a pair are next to each other, the host's first.
fn gateway(dyno: SocketAddr) -> Ipv4Addr {
    let IpAddr::V4(ip) = dyno.ip() else { panic!("{dyno}") };
    (ip.to_bits() - 1).into()
}

#[tokio::test]
async fn a_dyno_reaches_neither_others_nor_the_hosts_loopback_and_sees_its_own_interfaces() {
    if !in_own_network() {
        return;
    }
    let other = format!("{WEB}worker: perl meet first\n");
    let setup = shop(WEB, "").procfile("other", &other, "formation = { web = 1, worker = 1 }");
    fs::write(setup.dir().join("other/meet"), MEET).unwrap();
    let mesh = setup.start().await;
    mesh.says("app[worker.1]", "met").await;
    let known = all_up(&mesh, 3).await;
    let webs = known.iter().filter_map(|dyno| dyno.addr).collect::<Vec<_>>();
    assert_eq!(webs.len(), 2);
    let on_loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let loopback = on_loopback.local_addr().unwrap();
    let on_all = TcpListener::bind("0.0.0.0:0").unwrap();
    let _abstract = UnixListener::bind_addr(&UnixAddr::from_abstract_name(ABSTRACT).unwrap());
    let port = on_all.local_addr().unwrap().port();
    let to_all = [format!("perl reach $HOST {port}"), format!("perl reach $HOST {port} on eth0")];
    let to_others = webs.iter().flat_map(|web| {
        let to = reach(*web);
        // Whose gateway it is makes no difference: each is the host.
        [to.clone(), format!("{to} on eth0"), format!("{to} via {}", gateway(webs[0]))]
    });
    let to_others = to_others.collect::<Vec<_>>();
    let mut commands = to_others.clone();
    commands.extend([
        reach(loopback),
        format!("perl reach $HOST {}", loopback.port()),
        "perl meet".into(),
        "unshare -n true".into(),
    ]);
    commands.extend(to_all.clone());
    // The way out of a dyno is the address before its own.
    let host = "export HOST=$(perl -ne '/^eth0\\s+00000000\\s+(..)(..)(..)(..)/ and print join \".\", map hex, $4, $3, $2, $1' /proc/net/route)";
    let sees = "ls /sys/class/net | tr '\\n' ' '; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' '";
    let text = printed(&mesh, &format!("{host}; {}{sees}; echo", tries(&commands))).await;
    let [plain, on_wire] = to_all;
    assert_eq!(text, format!("yes: {plain}\nyes: {on_wire}\neth0 lo eth0 lo \n"));

    // Neither routes nor interfaces are a dyno's to change, and nobody's firewall is what keeps it there.
    fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "0").unwrap();
    fs::write("/proc/sys/net/ipv4/conf/all/forwarding", "1").unwrap();
    run_on_host("nft", &["flush", "ruleset"]).await;
    let text = printed(&mesh, &format!("{}echo done", tries(&to_others))).await;
    assert_eq!(text, "done\n");
    for web in webs {
        TcpStream::connect(web).unwrap();
    }
}

#[tokio::test]
async fn private_dynos_crash_restart_scale_and_outlive_the_daemon_and_leave_nothing() {
    if !in_own_network() {
        return;
    }
    let before = (interfaces(), routes(), tables().await);
    let mut mesh = shop(WEB, "formation = { web = 2 }").start().await;
    all_up(&mesh, 2).await;
    assert!(interfaces().iter().filter(|name| name.starts_with("dm0ad5")).count() == 2);
    let crashed = mesh.get("/").await.text().to_owned();
    mesh.get("/exit?code=3").await;
    mesh.line("a crash", |line| line.message.contains("exited with status 3").then_some(())).await;
    all_up(&mesh, 2).await;
    for _ in 0..10 {
        assert_eq!(mesh.get("/").await.status, 200, "after {crashed} has crashed");
    }
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.procfile("shop", WEB, &format!("formation = {{ web = 3 }}\n{COOL}"))
    })
    .await;
    let up = all_up(&mesh, 3).await;
    let addrs = |known: &[Known]| known.iter().map(|it| (it.pid, it.addr)).collect::<Vec<_>>();
    assert!(up.iter().all(|it| it.addr.unwrap().ip().to_string().starts_with("10.213.0.")));

    let mut mesh = mesh.killed().await.start().await;
    mesh.says("heroku[web.3]", "Adopted, up since ").await;
    assert_eq!(addrs(&all_up(&mesh, 3).await), addrs(&up));
    assert_eq!(mesh.get("/").await.status, 200);
    assert_eq!(mesh.command(&["ps:restart", "-a", "shop"]).await.code, Some(0));
    mesh.line("new processes", |line| {
        (line.source == "heroku[web.3]" && line.message.contains("exited with status 143"))
            .then_some(())
    })
    .await;
    let restarted = all_up(&mesh, 3).await;
    assert!(addrs(&restarted).iter().all(|it| !addrs(&up).contains(it)), "new addresses");
    assert_eq!(mesh.get("/").await.status, 200);

    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    becomes_true("no interface to be left", async || interfaces() == before.0).await;
    assert_eq!((interfaces(), routes(), tables().await), before);
    assert!(!mesh.path("state/network.json").exists());
}

/// A daemon for which dynos are in the host's network clears away what one before it had, once nobody needs it.
#[tokio::test]
async fn what_a_killed_daemon_had_goes_with_the_last_dyno_that_needs_it() {
    if !in_own_network() {
        return;
    }
    let before = (routes(), tables().await);
    let mesh = shop(WEB, "").start().await;
    let up = all_up(&mesh, 1).await;
    let setup = mesh.killed().await;
    let text = setup.text().replace("network = \"private\"\n", "");
    let mesh = setup.start_with(&text).await;
    assert_eq!(all_up(&mesh, 1).await[0].addr, up[0].addr, "it is adopted where it is");
    assert_eq!(mesh.get("/").await.text(), "web.1");
    assert!(mesh.path("state/network.json").exists());
    assert_eq!(mesh.command(&["ps:restart", "-a", "shop"]).await.code, Some(0));
    let is_there = async || mesh.known().await.iter().any(|it| it.addr == up[0].addr);
    becomes_true("it to be replaced", async || !is_there().await).await;
    let now = all_up(&mesh, 1).await;
    assert!(now[0].addr.unwrap().ip().is_loopback());
    let left = || fs::read_dir(mesh.path("state/dynos")).unwrap().count();
    becomes_true("its directory to be gone", async || left() == 1).await;
    let mut mesh = mesh.killed().await.start_with(&text).await;
    assert!(!mesh.path("state/network.json").exists());
    assert_eq!((routes(), tables().await), before);
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
}

// ---- beyond the host --------------------------------------------------------------------------------------

/// Another machine, on a wire to this network: it has some addresses, listens, and tells who came.
struct Elsewhere {
    came: mpsc::Receiver<SocketAddr>,
    asked: mpsc::Sender<SocketAddr>,
    reached: mpsc::Receiver<bool>,
}

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const PORT: u16 = 8080;

impl Elsewhere {
    fn begin() -> Self {
        let (network, networks) = mpsc::channel();
        let (wired, wires) = mpsc::channel::<()>();
        let (came, callers) = mpsc::channel();
        let (asked, questions) = mpsc::channel::<SocketAddr>();
        let (reached, answers) = mpsc::channel();
        thread::spawn(move || {
            leave_network();
            network.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            wires.recv().unwrap();
            let kernel = Netlink::open().unwrap();
            let index = kernel.index("wire").unwrap();
            let ask = |request| kernel.ask(&request).unwrap();
            ask(NetworkRequest::AddAddress(index, THERE, 24));
            ask(NetworkRequest::AddAddress(index, LINK_LOCAL, 16));
            ask(NetworkRequest::SetUp(index));
            ask(NetworkRequest::AddDefaultRoute(HERE));
            let listeners = [PORT, 53].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap());
            for listener in listeners {
                let came = came.clone();
                thread::spawn(move || {
                    while let Ok((_, peer)) = listener.accept() {
                        let _ = came.send(peer);
                    }
                });
            }
            network.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
            while let Ok(addr) = questions.recv() {
                let tried = TcpStream::connect_timeout(&addr, Duration::from_secs(2));
                reached.send(tried.is_ok()).unwrap();
            }
        });
        let kernel = Netlink::open().unwrap();
        let there = networks.recv().unwrap();
        let pair = NetworkRequest::NewPair {
            name: "uplink",
            mac: [2, 0, 0, 0, 0, 2],
            peer_name: "wire",
            peer_mac: [2, 0, 0, 0, 0, 1],
            peer_network: there.as_fd(),
        };
        kernel.ask(&pair).unwrap();
        let index = kernel.index("uplink").unwrap();
        kernel.ask(&NetworkRequest::AddAddress(index, HERE, 24)).unwrap();
        kernel.ask(&NetworkRequest::SetUp(index)).unwrap();
        wired.send(()).unwrap();
        networks.recv().unwrap();
        kernel.ask(&NetworkRequest::AddDefaultRoute(THERE)).unwrap();
        Self { came: callers, asked, reached: answers }
    }

    /// Whether that machine reaches an address.
    fn reaches(&self, addr: SocketAddr) -> bool {
        self.asked.send(addr).unwrap();
        self.reached.recv().unwrap()
    }
}

#[tokio::test]
async fn outbound_is_free_but_for_the_hosts_own_rights_and_nobody_comes_in() {
    if !in_own_network() {
        return;
    }
    let elsewhere = Elsewhere::begin();
    let mesh = shop(WEB, "").start().await;
    if tables().await.is_none() {
        eprintln!("skipped: there is no nft here");
        return;
    }
    mesh.says("dynomesh[supervisor]", "this host forwards from now on").await;
    let web = all_up(&mesh, 1).await[0].addr.unwrap();
    let commands = [(THERE, PORT), (LINK_LOCAL, PORT), (LINK_LOCAL, 53)].map(|to| reach(to.into()));
    let text = printed(&mesh, &format!("{}echo done", tries(&commands))).await;
    assert_eq!(text, format!("yes: {}\nyes: {}\ndone\n", commands[0], commands[2]));
    let came = elsewhere.came.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(came.ip(), IpAddr::from(HERE), "it looks as if the host had come");
    assert!(!elsewhere.reaches(web));
    assert!(TcpStream::connect(web).is_ok(), "the router reaches it");

    // Somebody has flushed the firewall; a reload puts it up again.
    let mut mesh = mesh;
    run_on_host("nft", &["flush", "ruleset"]).await.unwrap();
    mesh.reload(|setup| setup).await;
    becomes_true("the table to be there", async || {
        tables().await.is_some_and(|tables| tables.contains("masquerade"))
    })
    .await;
}

#[tokio::test]
async fn without_a_firewall_dynos_are_apart_all_the_same_and_reach_nothing_beyond_the_host() {
    if !in_own_network() {
        return;
    }
    let elsewhere = Elsewhere::begin();
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    // As where it is not there: nobody can run it.
    let hidden = "exec unshare -m sh -c 'for nft in /usr/sbin/nft /sbin/nft /usr/bin/nft; do test ! -e $nft || mount --bind /dev/null $nft; done; exec \"$0\" \"$@\"'";
    let mesh = shop(WEB, "formation = { web = 2 }").before(hidden).start().await;
    mesh.says("dynomesh[supervisor]", "network: dynos reach nothing beyond this host: ").await;
    let webs = all_up(&mesh, 2).await.iter().map(|it| it.addr.unwrap()).collect::<Vec<_>>();
    let others = webs.iter().flat_map(|web| [reach(*web), format!("{} on eth0", reach(*web))]);
    let commands = others.chain([reach((THERE, PORT).into())]).collect::<Vec<_>>();
    let text = printed(&mesh, &format!("{}echo done", tries(&commands))).await;
    assert_eq!(text, "done\n");
    assert!(elsewhere.came.try_recv().is_err(), "nothing has left the host");
    assert_eq!(mesh.get("/").await.status, 200);
}

/// What runs out of the box.
#[tokio::test]
async fn the_example_app_listens_where_it_is_reached() {
    if !in_own_network() {
        return;
    }
    let mesh = shop("web: \"$DYNOMESH\" hello\n", "").start().await;
    assert_eq!(mesh.get("/").await.status, 200);
    let text = printed(&mesh, "echo $DYNOMESH_NETWORK").await;
    assert_eq!(text, "private\n");
}

// ---- what is to be known ----------------------------------------------------------------------------------

#[tokio::test]
async fn an_app_that_listens_on_its_own_loopback_is_told_where_to_listen() {
    if !in_own_network() {
        return;
    }
    let setup = shop("web: BIND=127.0.0.1 TESTAPP\n", "");
    let text = setup.text().replace("cool_off = ", "boot = \"4s\", cool_off = ");
    let mesh = setup.start_with(&text).await;
    let line = mesh.says("heroku[web.1]", "Listens on 127.0.0.1:").await;
    let rest = " only, where nobody reaches it: it has a network of its own and must bind to 0.0.0.0:$PORT";
    assert!(line.message.ends_with(rest), "{}", line.message);
    mesh.says("heroku[web.1]", "Error R10 (Boot timeout)").await;
}

/// As on most machines today: a service on the host's loopback resolves names, and /etc/resolv.conf is a link to what
/// it wrote.
#[tokio::test]
async fn names_are_asked_of_whom_the_hosts_own_resolver_asks() {
    if !in_own_network() {
        return;
    }
    let resolved = "exec unshare -m sh -c 'mount -t tmpfs x /run && mkdir -p /run/systemd/resolve /run/o/u /run/o/w && mount -t overlay -o lowerdir=/etc,upperdir=/run/o/u,workdir=/run/o/w x /etc && echo nameserver 192.0.2.53 > /run/systemd/resolve/resolv.conf && echo nameserver 127.0.0.53 > /run/systemd/resolve/stub-resolv.conf && ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; exec \"$0\" \"$@\"'";
    let mesh = shop(WEB, "").before(resolved).start().await;
    all_up(&mesh, 1).await;
    assert_eq!(printed(&mesh, "cat /etc/resolv.conf").await, "nameserver 192.0.2.53\n");
}

#[tokio::test]
async fn where_networks_cannot_be_no_daemon_starts() {
    if cannot_isolate() {
        return;
    }
    let bound = "exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin";
    let setup = shop(WEB, "").before(bound);
    let (status, output) = within("its end", setup.run("serve")).await;
    assert!(!status.success());
    assert!(
        output.contains("give dynos networks of their own: dynos are not isolated here; [dynos] network = \"private\""),
        "{output}"
    );
}

#[tokio::test]
async fn the_doctor_tries_networks_and_leaves_nothing() {
    if !in_own_network() {
        return;
    }
    let before = (interfaces(), routes(), tables().await);
    let (_, printed) = shop(WEB, "").run("doctor --json").await;
    let findings: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let works = |part: &str| {
        let findings = findings.as_array().unwrap();
        findings.iter().find(|it| it["part"] == part).unwrap()["works"].clone()
    };
    assert_eq!(works("network"), true, "{printed}");
    assert_eq!(works("outbound"), before.2.is_some(), "{printed}");
    becomes_true("no interface to be left", async || interfaces() == before.0).await;
    assert_eq!((interfaces(), routes(), tables().await), before);
}
