//! Certificates by name: a local CA out of the box, own ones from files, exchanged without closing anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use crate::support::{App, Client, Mesh, Setup};

/// A client that trusts the certificates in these files.
fn trusting(files: &[&Path]) -> Arc<ClientConfig> {
    speaking(&[&TLS13, &TLS12], files)
}

fn speaking(versions: &[&'static SupportedProtocolVersion], files: &[&Path]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for file in files {
        roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Writes a certificate for this name, signed by its own key, which is put beside it.
fn write_pair(dir: &Path, file: &str, name: &str) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
    fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}

/// The certificate that a client got to see.
fn seen(client: &Client) -> CertificateDer<'static> {
    client.tls().peer_certificates().unwrap()[0].clone().into_owned()
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

/// The status of a GET for `own.test`.
async fn get(client: &mut Client) -> u16 {
    client.send("GET / HTTP/1.1\r\nHost: own.test\r\n\r\n").await;
    client.answer().await.status
}

const OWN: &str = "domains = [\"own.test\"]\n[[certs]]\ndir = \"certs\"";

/// A daemon with a certificate of its own for `own.test`, behind a link as certbot has it.
async fn with_own_certificate(app: &App) -> Mesh {
    let setup = Setup::new().listen_tls();
    write_pair(&setup.dir().join("archive/1"), "own", "own.test");
    write_pair(&setup.dir().join("archive/2"), "own", "own.test");
    symlink("archive/1", setup.dir().join("certs")).unwrap();
    setup.shop_with(&[app], OWN).start().await
}

#[tokio::test]
async fn out_of_the_box_every_app_is_secured_by_a_local_ca() {
    let app = App::start().await;
    let lines = "domains = [\"own.test\", \"*.own.test\"]";
    let mesh = Setup::new().listen_tls().shop_with(&[&app], lines).start().await;
    let config = trusting(&[&mesh.path("state/ca/ca.pem")]);
    for name in ["shop.localhost", "own.test", "any.own.test"] {
        let mut client = Client::connect_tls(mesh.https(), &config, name).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, 200, "{name}");
    }
    // Names of the machine itself; which app answers there is another matter.
    for name in ["localhost", "127.0.0.1", "::1"] {
        Client::connect_tls(mesh.https(), &config, name).await;
    }
    let stranger = trusting(&[]);
    let refused = Client::try_connect_tls(mesh.https(), &stranger, "shop.localhost").await;
    assert!(refused.is_err(), "a certificate of nobody's CA");
}

/// The CA that `dynomesh ca` prints, before there is a daemon, is the one that the daemon signs with.
#[tokio::test]
async fn the_local_ca_is_printed_and_kept() {
    let app = App::start().await;
    let setup = Setup::new().listen_tls().shop(&[&app]);
    let (status, printed) = setup.run("ca").await;
    assert!(status.success(), "{printed}");
    fs::write(setup.dir().join("printed.pem"), &printed).unwrap();
    let mesh = setup.start().await;
    let config = trusting(&[&mesh.path("printed.pem")]);
    let mut client = Client::connect_tls(mesh.https(), &config, "shop.localhost").await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(mesh.setup().run("ca").await.1, printed);
    let metrics = mesh.metrics().await;
    let left = metrics.get("dynomesh_certificate_remaining_seconds", &[("source", "local")]);
    assert!(left > 3600.0 * 86_400.0);
}

/// Each worker has the same keys for tickets: with two of them, forty connections meet both.
#[tokio::test]
async fn a_session_goes_on_at_every_worker() {
    let app = App::start().await;
    let mesh = Setup::new().listen_tls().shop(&[&app]).start().await;
    for version in [&TLS12, &TLS13] {
        let config = speaking(&[version], &[&mesh.path("state/ca/ca.pem")]);
        for connection in 0..40 {
            let mut client = Client::connect_tls(mesh.https(), &config, "shop.localhost").await;
            assert_eq!(client.get("/").await.status, 200);
            let resumed = client.tls().handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, connection > 0, "{version:?}, connection {connection}");
        }
    }
}

/// Renewed as certbot does it (a link is exchanged), with nobody telling the daemon.
#[tokio::test]
async fn a_certificate_that_changes_on_disk_is_served_and_nothing_is_closed() {
    let app = App::start().await;
    let mesh = with_own_certificate(&app).await;
    let (first, second) = (mesh.path("archive/1/own.pem"), mesh.path("archive/2/own.pem"));
    let config = trusting(&[&first, &second]);
    let mut before = Client::connect_tls(mesh.https(), &config, "own.test").await;
    assert_eq!(get(&mut before).await, 200);
    assert_eq!(seen(&before), certificate(&first));
    symlink("archive/2", mesh.path("next")).unwrap();
    fs::rename(mesh.path("next"), mesh.path("certs")).unwrap();
    mesh.says("dynomesh[daemon]", "certificates: read again").await;
    let fresh = trusting(&[&first, &second]);
    let mut after = Client::connect_tls(mesh.https(), &fresh, "own.test").await;
    assert_eq!(seen(&after), certificate(&second));
    assert_eq!(get(&mut after).await, 200);
    assert_eq!(get(&mut before).await, 200, "an open connection was touched");
}

/// By a reload, and by a change on disk that nobody announced: what is wrong is said, the old stays.
#[tokio::test]
async fn a_certificate_that_cannot_be_served_changes_nothing_and_is_told() {
    let app = App::start().await;
    let mut mesh = with_own_certificate(&app).await;
    let first = certificate(&mesh.path("archive/1/own.pem"));
    let other_key = fs::read(mesh.path("archive/2/own.key")).unwrap();
    let key = fs::read(mesh.path("archive/1/own.key")).unwrap();
    fs::write(mesh.path("certs/own.key"), other_key).unwrap();
    let text = mesh.setup().text();
    mesh.reload_text(&text, "refused").await;
    let line = mesh.says("dynomesh[daemon]", "certs/own.key: is not the key of the first").await;
    let entry = text.lines().position(|line| line == "[[certs]]").unwrap() + 1;
    assert!(line.message.contains(&format!("dynomesh.toml:{entry}: certs: ")), "{}", line.message);
    mesh.says("dynomesh[daemon]", "certificates: those read before stay in force").await;
    let config = trusting(&[&mesh.path("archive/1/own.pem")]);
    let client = Client::connect_tls(mesh.https(), &config, "own.test").await;
    assert_eq!(seen(&client), first);
    fs::write(mesh.path("certs/own.key"), key).unwrap();
    mesh.reload_text(&text, "ok").await;
}

#[tokio::test]
async fn serve_and_check_refuse_a_bad_certificate_and_a_check_makes_no_ca() {
    let setup = Setup::new().listen_tls();
    write_pair(&setup.dir().join("certs"), "own", "own.test");
    let setup = setup.app("shop", OWN);
    let (status, said) = setup.run("check").await;
    assert!(status.success(), "{said}");
    assert!(!setup.dir().join("state").exists(), "a check made something");
    fs::write(setup.dir().join("certs/own.pem"), "").unwrap();
    for command in ["check", "serve"] {
        let (status, said) = setup.run(command).await;
        assert_eq!(status.code(), Some(64), "{said}");
        assert!(said.contains("certs/own.pem: has no certificate"), "{said}");
    }
}

/// Runs a command that has to succeed, and returns what it printed.
async fn does(mesh: &Mesh, args: &[&str]) -> String {
    let ran = mesh.command(args).await;
    assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
    ran.out
}

#[tokio::test]
async fn certificates_of_commands_are_shown_for_the_domains_that_they_are_for() {
    let app = App::start().await;
    let mesh = Setup::new()
        .listen_tls()
        .shop_with(&[&app], "domains = [\"own.test\", \"*.own.test\"]")
        .start()
        .await;
    let dir = mesh.path("given");
    for (file, name) in [("a", "own.test"), ("b", "own.test"), ("other", "other.test")] {
        write_pair(&dir, file, name);
    }
    let file = |name: &str| dir.join(name).display().to_string();
    let [a, b, other] = ["a.pem", "b.pem", "other.pem"].map(|it| dir.join(it));
    let shown = async |mesh: &Mesh, name: &str, trusted: &Path| {
        let config = trusting(&[trusted]);
        let mut client = Client::connect_tls(mesh.https(), &config, name).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, 200, "{name}");
        seen(&client)
    };

    let wrong = mesh.command(&["certs:add", &file("a.pem"), &file("b.key")]).await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("The private key is not the key of the first"), "{wrong:?}");
    let told = does(&mesh, &["certs:add", &file("a.pem"), &file("a.key")]).await;
    assert!(told.contains("Common Name(s): own.test\n"), "{told}");
    assert!(told.contains("Shown For:      1 of the app's domains\n"), "{told}");
    assert!(told.ends_with("SSL certificate is self signed.\n"), "{told}");
    assert_eq!(shown(&mesh, "own.test", &a).await, certificate(&a));
    let ca = mesh.path("state/ca/ca.pem");
    shown(&mesh, "any.own.test", &ca).await;

    // A name that a command adds has a certificate, too: of the local CA, and then its own.
    does(&mesh, &["domains:add", "other.test"]).await;
    shown(&mesh, "other.test", &ca).await;
    does(&mesh, &["certs:add", &file("other.pem"), &file("other.key")]).await;
    assert_eq!(shown(&mesh, "other.test", &other).await, certificate(&other));

    let mesh = mesh.killed().await.start().await;
    assert_eq!(shown(&mesh, "own.test", &a).await, certificate(&a));
    let metrics = mesh.metrics().await;
    let labels = [("name", "own.test"), ("source", "command")];
    assert!(metrics.get("dynomesh_certificate_remaining_seconds", &labels) > 0.0);
    let listed = does(&mesh, &["certs"]).await;
    let named: Vec<&str> = listed.lines().map(|it| it.split(' ').next().unwrap()).collect();
    let (first, second) = (named[0], named[1]);
    let several = mesh.command(&["certs:remove"]).await;
    assert!(several.err.contains("has several SSL certificates: say --name"), "{several:?}");
    does(&mesh, &["certs:update", &file("b.pem"), &file("b.key"), "--name", first]).await;
    assert_eq!(shown(&mesh, "own.test", &b).await, certificate(&b));
    does(&mesh, &["certs:remove", "--name", first]).await;
    shown(&mesh, "own.test", &ca).await;
    does(&mesh, &["certs:remove", "--name", second]).await;
    assert!(does(&mesh, &["certs"]).await.contains("shop has no SSL certificates."));
}

/// The file goes before commands.
#[tokio::test]
async fn a_certificate_of_the_file_stays_what_is_shown() {
    let app = App::start().await;
    let mesh = with_own_certificate(&app).await;
    let dir = mesh.path("given");
    write_pair(&dir, "a", "own.test");
    let [chain, key] = ["a.pem", "a.key"].map(|it| dir.join(it).display().to_string());
    does(&mesh, &["certs:add", &chain, &key]).await;
    let config = trusting(&[&mesh.path("certs/own.pem")]);
    let client = Client::connect_tls(mesh.https(), &config, "own.test").await;
    assert_eq!(seen(&client), certificate(&mesh.path("certs/own.pem")));
}
