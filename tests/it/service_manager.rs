//! systemd's two protocols: sockets that it opens, states that it hears of.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::support::{Client, Setup, within};

/// The next word to the manager.
async fn told(manager: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let length = within("a notification", manager.recv(&mut message)).await;
    let length = length.expect("receive");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

/// Starts the daemon with this listening socket. The shell stands for systemd: it puts the socket at descriptor
/// 3 and becomes the daemon, whose process id it therefore knows.
#[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
fn handed(setup: &Setup, listener: OwnedFd) -> (Child, Pid) {
    let daemon = Command::new("sh")
        .args([
            "-c",
            r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" serve --config "$1""#,
        ])
        .arg(env!("CARGO_BIN_EXE_dynomesh"))
        .arg(setup.file())
        .env("NOTIFY_SOCKET", setup.dir().join("notify"))
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(daemon.id().unwrap() as i32).unwrap();
    (daemon, pid)
}

#[tokio::test]
async fn an_inherited_socket_is_used_and_the_manager_hears_of_each_state() {
    let setup = Setup::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let manager = UnixDatagram::bind(setup.dir().join("notify")).unwrap();
    let text =
        format!("[router]\nhttp = [\"{addr}\"]\nhttps = []\n[admin]\nhttp = \"127.0.0.1:0\"\n");
    fs::write(setup.file(), text).unwrap();
    let (mut daemon, pid) = handed(&setup, listener.into());

    assert_eq!(told(&manager).await, "READY=1");
    // Had the daemon bound the address itself, it would have failed: the socket at descriptor 3 has it.
    assert_eq!(Client::connect(addr).await.get("/").await.status, 404);

    kill_process(pid, Signal::HUP).unwrap();
    assert!(told(&manager).await.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(&manager).await, "READY=1");

    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(told(&manager).await, "STOPPING=1");
    assert!(within("the daemon's end", daemon.wait()).await.unwrap().success());
}

/// Its file is the manager's: the next start is handed the same socket.
#[tokio::test]
async fn the_file_of_an_inherited_unix_socket_stays() {
    for by_reload in [false, true] {
        let setup = Setup::new();
        let door = setup.dir().join("door.sock");
        let listener = UnixListener::bind(&door).unwrap();
        let manager = UnixDatagram::bind(setup.dir().join("notify")).unwrap();
        let admin = "[admin]\nhttp = \"127.0.0.1:0\"\n";
        let text = format!("[router]\nhttp = [\"unix:{}\"]\nhttps = []\n{admin}", door.display());
        fs::write(setup.file(), text).unwrap();
        let (mut daemon, pid) = handed(&setup, listener.into());
        assert_eq!(told(&manager).await, "READY=1");
        assert_eq!(Client::connect_unix(&door).await.get("/").await.status, 404);
        if by_reload {
            fs::write(
                setup.file(),
                format!("[router]\nhttp = [\"127.0.0.1:0\"]\nhttps = []\n{admin}"),
            )
            .unwrap();
            kill_process(pid, Signal::HUP).unwrap();
            assert!(told(&manager).await.starts_with("RELOADING=1"));
            assert_eq!(told(&manager).await, "READY=1");
        }
        kill_process(pid, Signal::TERM).unwrap();
        assert!(within("the daemon's end", daemon.wait()).await.unwrap().success());
        assert!(door.exists(), "by reload: {by_reload}");
    }
}
