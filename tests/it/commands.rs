//! Commands that ask the running daemon.

use std::fs;
use std::path::Path;
use std::process::Output;

use tokio::process::Command;

use crate::support::{Mesh, Setup, within};

/// Runs a command about this file to its end.
async fn dynomesh(command: &str, file: &Path) -> Output {
    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    let mut process = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
    process.args([command, "--config"]).arg(file).kill_on_drop(true);
    within(command, process.output()).await.expect("run dynomesh")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A daemon with one app on one dyno that nobody runs.
async fn mesh() -> Mesh {
    Setup::new().app("shop", "dynos = [\"127.0.0.1:1\"]").start().await
}

#[tokio::test]
async fn check_says_what_a_reload_would_change_and_reload_does_it() {
    let mesh = mesh().await;
    let file = mesh.setup().file();
    assert!(printed(&dynomesh("check", &file).await).ends_with("A reload would change nothing.\n"));

    let text = mesh.setup().text() + "[apps.blog]\ndynos = [\"127.0.0.1:2\"]\n";
    fs::write(&file, text.replace("127.0.0.1:1", "127.0.0.1:3")).unwrap();
    let check = printed(&dynomesh("check", &file).await);
    let changes = check.split_once("A reload would change:\n").expect(&check).1.to_owned();
    assert!(changes.contains("+ app blog"), "{changes}");
    assert!(changes.contains("- app shop: dyno 127.0.0.1:1\n"), "{changes}");
    assert!(changes.contains("+ app shop: dyno 127.0.0.1:3\n"), "{changes}");

    // Nothing has happened yet; what happens is what was said.
    assert!(!mesh.ask_admin("/debug/dynos").await.text().contains("blog"));
    let reload = dynomesh("reload", &file).await;
    assert_eq!(code(&reload), 0, "{}", complained(&reload));
    for change in changes.lines() {
        assert!(printed(&reload).contains(change.trim()), "{change}");
    }
    assert!(mesh.ask_admin("/debug/dynos").await.text().contains("blog"));
}

#[tokio::test]
async fn a_refused_reload_exits_1_with_the_reasons_and_changes_nothing() {
    let mesh = mesh().await;
    let file = mesh.setup().file();
    let broken = mesh.setup().text() + "dinos = []\n";
    let line = broken.lines().count();
    fs::write(&file, broken).unwrap();
    // The file does not say where the socket is any more, so the command is told.
    let socket = mesh.setup().dir().join("state/dynomesh.sock");
    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    let mut reload = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
    reload.arg("reload").env("DYNOMESH_SOCKET", socket);
    let reload = within("reload", reload.output()).await.unwrap();
    assert_eq!(code(&reload), 1);
    let reasons = complained(&reload);
    assert!(reasons.contains(&format!("dynomesh.toml:{line}: apps.shop.dinos: ")), "{reasons}");
    assert!(reasons.ends_with("reload refused, nothing was changed\n"), "{reasons}");
    assert!(mesh.ask_admin("/debug/dynos").await.text().contains("127.0.0.1:1"));
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_is_refused() {
    let mesh = mesh().await;
    let second = dynomesh("serve", &mesh.setup().file()).await;
    assert_eq!(code(&second), 1);
    let complaint = complained(&second);
    assert!(complaint.starts_with("dynomesh: another dynomesh is running: "), "{complaint}");
    // The first one keeps its socket.
    assert_eq!(code(&dynomesh("health", &mesh.setup().file()).await), 0);
}

#[tokio::test]
async fn without_a_daemon_commands_say_so() {
    let setup = Setup::new();
    fs::write(setup.file(), setup.text()).unwrap();
    assert_eq!(code(&dynomesh("check", &setup.file()).await), 0);
    for command in ["reload", "health"] {
        let output = dynomesh(command, &setup.file()).await;
        assert_eq!(code(&output), 1, "{command}");
        assert!(
            complained(&output).starts_with("dynomesh: no dynomesh answers on unix:/"),
            "{command}"
        );
    }
}

#[tokio::test]
async fn bash_completes_commands_with_their_colons() {
    let complete = async |typed: &str, last: usize| {
        let script = format!(
            "source <($0 completions bash); COMP_WORDS=(dynomesh {typed}); COMP_CWORD={last}; \
             cur=${{COMP_WORDS[$COMP_CWORD]}}; _dynomesh dynomesh \"$cur\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             echo \"${{COMPREPLY[*]}}\"; [[ $COMP_WORDBREAKS != *:* ]]"
        );
        #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
        let mut bash = Command::new("bash");
        bash.args(["-c", &script, env!("CARGO_BIN_EXE_dynomesh")]).kill_on_drop(true);
        let output = within("bash", bash.output()).await.unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
        printed(&output).trim().to_owned()
    };
    assert_eq!(complete("ps:sc", 1).await, "ps:scale");
    assert_eq!(complete("ps:scale --sock", 2).await, "--socket");
    assert_eq!(complete("completions f", 2).await, "fish");
}
