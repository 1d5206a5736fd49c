//! `dynomesh heroku` and `dynomesh env`: what the heroku CLI is given. In its place stands a script that says so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use tokio::process::Command;

use crate::support::{Client, Mesh, Setup, Tls, within};

type Variables = BTreeMap<String, String>;

async fn mesh() -> Mesh {
    let mesh = Setup::new().procfile("shop", "web: TESTAPP\n", "").api().start().await;
    let script = mesh.path("bin/heroku");
    fs::create_dir(mesh.path("bin")).unwrap();
    fs::write(&script, "#!/bin/sh\n/usr/bin/env\necho \"ARGS=$*\"\nexit 7\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    mesh
}

/// Runs a command with nothing in its environment but this.
async fn dynomesh(mesh: &Mesh, args: &[&str], env: &[(&str, &str)]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
    command.args(&args[..1]).arg("--config").arg(mesh.setup().file()).args(&args[1..]);
    command.env_clear().env("PATH", mesh.path("bin")).envs(env.iter().copied()).kill_on_drop(true);
    within("dynomesh", command.output()).await.unwrap()
}

/// What the script was given.
async fn heroku(mesh: &Mesh, args: &[&str], env: &[(&str, &str)]) -> Variables {
    let output = dynomesh(mesh, &[&["heroku"], args].concat(), env).await;
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.into(), value.into()));
    said.lines().filter_map(pair).collect()
}

fn complained(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Whether the API takes this token.
async fn is_good(mesh: &Mesh, token: &str) -> bool {
    let mut client = Client::connect(mesh.api().await).await;
    let host = "Host: localhost\r\n";
    client
        .send(format!("GET /account HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\n\r\n"))
        .await;
    client.answer().await.status == 200
}

#[tokio::test]
async fn it_is_given_all_that_it_needs_and_sent_nowhere_else() {
    let mesh = mesh().await;
    let elsewhere = [
        ("HEROKU_API_KEY", "HRKU-somebody-elses"),
        ("HEROKU_HOST", "https://api.heroku.com"),
        ("HEROKU_ORGANIZATION", "org"),
        ("HEROKU_HEADERS", "{}"),
        ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
        ("HTTPS_PROXY", "http://proxy.test"),
        ("no_proxy", ".heroku.com"),
        ("SSL_CERT_DIR", "/etc/ssl/certs"),
    ];
    let given = heroku(&mesh, &["ps:scale", "web=2", "-a", "shop", "--json"], &elsewhere).await;
    assert_eq!(given["ARGS"], "ps:scale web=2 -a shop --json");
    let addr = mesh.api().await;
    let host = format!("https://{addr}");
    assert_eq!((&given["HEROKU_HOST"], &given["HEROKU_PARTICLEBOARD_URL"]), (&host, &host));
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(given[proxy], format!("http://{addr}"));
    }
    for (name, value) in [
        ("DISABLE_TELEMETRY", "true"),
        ("HEROKU_SKIP_NEW_VERSION_CHECK", "1"),
        ("HEROKU_DISABLE_AUTOUPDATE", "1"),
    ] {
        assert_eq!(given[name], value);
    }
    for name in [
        "HEROKU_ORGANIZATION",
        "HEROKU_HEADERS",
        "NODE_TLS_REJECT_UNAUTHORIZED",
        "NO_PROXY",
        "no_proxy",
        "SSL_CERT_DIR",
    ] {
        assert!(!given.contains_key(name), "{name}");
    }
    let ca = mesh.path("state/ca/ca.pem").canonicalize().unwrap();
    for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
        assert_eq!(fs::canonicalize(&given[name]).unwrap(), ca);
    }
    assert!(is_good(&mesh, &given["HEROKU_API_KEY"]).await);
}

#[tokio::test]
async fn its_token_is_made_once_and_kept_for_its_owner() {
    let mesh = mesh().await;
    let token = async || heroku(&mesh, &["apps"], &[]).await.remove("HEROKU_API_KEY").unwrap();
    let first = token().await;
    assert_eq!(token().await, first);
    let file = mesh.path("state/heroku-cli.token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = mesh.command(&["token"]).await.out;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let id = listed.split(' ').next().unwrap();
    assert_eq!(mesh.command(&["token:revoke", id]).await.code, Some(0));
    let second = token().await;
    assert_ne!(second, first);
    assert!(is_good(&mesh, &second).await && !is_good(&mesh, &first).await);
    // Whoever has one of ours at hand wants that one: it may be for less.
    let read = mesh.command(&["token:create", "-s", "read"]).await.out.trim().to_owned();
    let given = heroku(&mesh, &["apps"], &[("HEROKU_API_KEY", &read)]).await;
    assert_eq!(given["HEROKU_API_KEY"], read);
}

#[tokio::test]
async fn whom_its_user_trusts_already_is_trusted_still() {
    let mesh = mesh().await;
    let theirs = mesh.path("theirs.pem");
    fs::write(&theirs, "their authority\n").unwrap();
    let env = [("NODE_EXTRA_CA_CERTS", theirs.to_str().unwrap())];
    let bundle = heroku(&mesh, &["apps"], &env).await.remove("NODE_EXTRA_CA_CERTS").unwrap();
    let own = fs::read_to_string(mesh.path("state/ca/ca.pem")).unwrap();
    assert_eq!(fs::read_to_string(&bundle).unwrap(), format!("{own}\ntheir authority\n\n"));
    // What was exported once is taken for what it is.
    let again = [("NODE_EXTRA_CA_CERTS", &*bundle)];
    heroku(&mesh, &["apps"], &again).await;
    assert!(fs::read_to_string(&bundle).unwrap().contains("their authority"));
}

#[tokio::test]
async fn env_says_the_same_to_a_shell() {
    let mesh = mesh().await;
    let given = heroku(&mesh, &["apps"], &[]).await;
    let output = dynomesh(&mesh, &["env"], &[("NO_PROXY", "corp.test")]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for name in ["HEROKU_HOST", "HEROKU_API_KEY", "NODE_EXTRA_CA_CERTS", "HEROKU_PARTICLEBOARD_URL"]
    {
        assert!(said.contains(&format!("export {name}={}\n", given[name])), "{name}: {said}");
    }
    assert!(said.contains("export NO_PROXY=localhost,127.0.0.1,corp.test\n"), "{said}");
    assert!(said.ends_with(
        "unset HEROKU_ORGANIZATION HEROKU_TEAM HEROKU_HEADERS NODE_TLS_REJECT_UNAUTHORIZED\n"
    ));
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let mesh = mesh().await;
    let said = complained(&dynomesh(&mesh, &["heroku", "apps"], &[("PATH", "/nonexistent")]).await);
    assert_eq!(said, "dynomesh: there is no heroku on the PATH: npm install -g heroku\n");
    let without = Setup::new().start().await;
    let said = complained(&dynomesh(&without, &["env"], &[]).await);
    assert!(said.starts_with("dynomesh: the daemon has no [admin] api, "), "{said}");
}

/// What the CLI sends to hosts of Heroku's comes here, and gets no further.
#[tokio::test]
async fn the_port_is_a_proxy_to_itself_alone() {
    let mesh = mesh().await;
    let addr = mesh.api().await;
    let connect = async |to: &str| {
        let mut client = Client::connect(addr).await;
        client.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
        let status = client.head().await.status;
        (client, status)
    };
    for elsewhere in ["api.metrics.herokai.com:5000", "particleboard.heroku.com:443", "10.0.0.1:80"]
    {
        let (mut client, status) = connect(elsewhere).await;
        assert_eq!(status, 403, "{elsewhere}");
        assert_eq!(client.rest().await, b"");
    }
    for (name, path) in
        [("localhost", "/account"), ("api.metrics.heroku.com", "/apps/shop/formation/web/monitors")]
    {
        let (mut plain, status) = connect(&format!("{name}:5000")).await;
        assert_eq!(status, 200);
        plain.send(format!("GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        assert_eq!(plain.answer().await.status, 401, "{name}");
    }
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = b"CONNECT 127.0.0.1:5000 HTTP/1.1\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
    let mut answer = [0; 19];
    within("200", tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK\r\n\r\n");
    let mut within_it = Client::over_tls(Tls::of(&mesh).over(stream, "localhost").await.unwrap());
    within_it.send("GET /account HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(within_it.answer().await.status, 401);
}
