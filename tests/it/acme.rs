//! Automatic certificates, from a server that speaks RFC 8555 and looks for proofs where the router listens.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::support::{
    AcmeServer, App, Client, Fault, Issued, Mesh, Resource, Setup, becomes_true, refusing_addr,
};

const NAME: &str = "shop.example";

// ---- the two proofs -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_custom_domain_gets_a_certificate_in_a_handshake() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mesh = setup(&ca, &app).listen_tls().start().await;
    expect_state(&mesh, NAME, "Waiting", "").await;
    ca.looks_at(mesh.http(), mesh.https());
    expect_state(&mesh, NAME, "OK", "").await;
    assert_eq!(ca.orders(), [(NAME.into(), Some("tls-alpn-01"), "valid")]);
    assert_eq!(ca.contacts(), [["mailto:ops@example.com"]]);
    assert_eq!(get_by_tls(mesh.https(), NAME, &ca.root()).await, Ok(200));
    mesh.metric_becomes("dynomesh_acme_domains", &[("state", "OK")], 1.0).await;
    // What was shown is gone with the order.
    let error = Client::try_connect_tls(mesh.https(), &only_acme(), NAME).await.err().unwrap();
    assert!(error.to_string().contains("alert"), "{error}");
    mesh.says("dynomesh[certs]", "certificate of shop.example: OK").await;
    let said = mesh.lines().into_iter().filter_map(|line| {
        line.message.strip_prefix("certificate of shop.example: ").map(str::to_owned)
    });
    assert_eq!(said.collect::<Vec<_>>(), ["Verified", "OK"]);
}

#[tokio::test]
async fn without_a_listener_for_tls_the_proof_is_at_a_path() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mesh = setup(&ca, &app).start().await;
    ca.looks_at(mesh.http(), refusing_addr());
    expect_state(&mesh, NAME, "OK", "").await;
    assert_eq!(ca.orders(), [(NAME.into(), Some("http-01"), "valid")]);
    // What was shown is gone with the order: the app is asked again.
    let answer = mesh.get("/.well-known/acme-challenge/token-of-order-0").await;
    assert!(!answer.text().contains("token-of-order-0."), "{answer:?}");
}

/// The server knows nothing of TLS-ALPN-01, and the app's plain requests are redirected.
#[tokio::test]
async fn the_proof_at_a_path_is_not_redirected() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    ca.offers(&["dns-01", "http-01"]);
    let setup = Setup::new()
        .listen_tls()
        .shop_with(&[&app], "domains = [\"shop.example\"]\nforce_https = true");
    let mesh = with_acme(setup, &ca, "").start().await;
    ca.looks_at(mesh.http(), refusing_addr());
    expect_state(&mesh, NAME, "OK", "").await;
    assert_eq!(ca.orders(), [(NAME.into(), Some("http-01"), "valid")]);
}

#[tokio::test]
async fn a_slow_server_is_waited_for() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    ca.dawdles(2);
    let mesh = setup(&ca, &app).start().await;
    ca.looks_at(mesh.http(), refusing_addr());
    expect_state(&mesh, NAME, "OK", "").await;
    assert!(ca.asked(Resource::Order) >= 4);
}

// ---- what is kept -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_start_serves_what_is_kept_and_asks_nobody() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mut mesh = setup(&ca, &app).listen_tls().start().await;
    ca.looks_at(mesh.http(), mesh.https());
    expect_state(&mesh, NAME, "OK", "").await;
    let kept = kept(mesh.dir());
    let names = kept.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["account.json", "shop.example.pem"]);
    for file in &kept {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }
    let asked = ca.asked(Resource::Directory);
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    let mesh = mesh.start_again().await;
    assert_eq!(get_by_tls(mesh.https(), NAME, &ca.root()).await, Ok(200));
    expect_state(&mesh, NAME, "OK", "").await;
    assert_eq!((ca.asked(Resource::Directory), ca.orders().len()), (asked, 1));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_set_aside_and_ordered_anew() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mut mesh = setup(&ca, &app).start().await;
    ca.looks_at(mesh.http(), refusing_addr());
    expect_state(&mesh, NAME, "OK", "").await;
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    for file in kept(mesh.dir()) {
        fs::write(file, "spoilt").unwrap();
    }
    let mesh = mesh.start_again().await;
    ca.looks_at(mesh.http(), refusing_addr());
    expect_state(&mesh, NAME, "OK", "").await;
    assert_eq!((ca.orders().len(), ca.contacts().len()), (2, 2));
    let kept = kept(mesh.dir());
    let names = kept.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["account.json", "account.json.broken", "shop.example.pem", "shop.example.pem.broken"]
    );
}

// ---- another configuration ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_reload_orders_for_new_names_and_forgets_old_ones() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mut mesh = setup(&ca, &app).listen_tls().start().await;
    let https = mesh.https();
    ca.looks_at(mesh.http(), https);
    expect_state(&mesh, NAME, "OK", "").await;
    let second = "second.example";
    mesh.reload(|mut setup| {
        setup.clear_apps();
        with_acme(setup.shop_with(&[&app], "domains = [\"second.example\"]"), &ca, "")
    })
    .await;
    expect_state(&mesh, second, "OK", "").await;
    assert_eq!(states(&mesh).await.len(), 1);
    assert_eq!(get_by_tls(https, second, &ca.root()).await, Ok(200));
    let error = get_by_tls(https, NAME, &ca.root()).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
    // Another contact is told to the same account; nothing is ordered for it.
    mesh.reload(|mut setup| {
        setup.clear_apps();
        let setup = setup.shop_with(&[&app], "domains = [\"second.example\", \"third.example\"]");
        with_acme(setup, &ca, "contact = [\"mailto:new@example.com\"]")
    })
    .await;
    expect_state(&mesh, "third.example", "OK", "").await;
    assert_eq!(
        (ca.orders().len(), ca.contacts()),
        (3, vec![vec!["mailto:new@example.com".into()]])
    );
    // Without [acme] there are none.
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop_with(&[&app], "domains = [\"second.example\"]")
    })
    .await;
    becomes_true("no name to be listed", async || states(&mesh).await.is_empty()).await;
    assert!(get_by_tls(https, second, &ca.root()).await.is_err());
}

#[tokio::test]
async fn a_name_with_a_certificate_of_its_own_is_not_ordered() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let setup = Setup::new()
        .listen_tls()
        .shop_with(&[&app], "domains = [\"shop.example\", \"own.example\"]")
        .table("[certs]", "cert = \"own.pem\"\nkey = \"own.key\"");
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["own.example".to_owned()]).unwrap().self_signed(&key);
    let own = own.unwrap().pem();
    fs::write(setup.dir().join("own.pem"), &own).unwrap();
    fs::write(setup.dir().join("own.key"), key.serialize_pem()).unwrap();
    let mesh = with_acme(setup, &ca, "").start().await;
    ca.looks_at(mesh.http(), mesh.https());
    expect_state(&mesh, NAME, "OK", "").await;
    assert_eq!(states(&mesh).await.len(), 1);
    assert_eq!(ca.orders().len(), 1);
    assert_eq!(get_by_tls(mesh.https(), "own.example", &own).await, Ok(200));
}

/// As servers for tests do when they are started anew.
#[tokio::test]
async fn an_account_that_the_server_forgot_is_made_anew() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mut mesh = setup(&ca, &app).start().await;
    ca.looks_at(mesh.http(), refusing_addr());
    expect_state(&mesh, NAME, "OK", "").await;
    ca.forgets_accounts();
    let both = "domains = [\"shop.example\", \"second.example\"]";
    mesh.reload(|mut setup| {
        setup.clear_apps();
        with_acme(setup.shop_with(&[&app], both), &ca, "")
    })
    .await;
    expect_state(&mesh, "second.example", "Failing", "no such account (accountDoesNotExist)").await;
    // A certificate that is there is not lost by it.
    expect_state(&mesh, NAME, "OK", "").await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        with_acme(setup.shop_with(&[&app], both), &ca, "contact = [\"mailto:new@example.com\"]")
    })
    .await;
    // It is failing until the manager has heard of the reload.
    mesh.says("dynomesh[certs]", "certificate of second.example: OK").await;
    assert_eq!(ca.contacts(), [["mailto:new@example.com"]]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_order() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mut mesh = setup(&ca, &app).start().await;
    // It never looks, for nobody tells it where.
    becomes_true("an order to be asked after", async || ca.asked(Resource::Order) > 0).await;
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
}

// ---- failures -----------------------------------------------------------------------------------------------

/// Each begins anew: after a failure a name waits for a minute.
#[tokio::test]
async fn what_the_server_does_wrong_is_said() {
    let nonsense = "the server's answer makes no sense: ";
    let problem = |status, kind| Fault::Problem(status, kind, None);
    let limited = Fault::Problem(429, "rateLimited", Some(7200));
    let faults = [
        (Resource::Directory, Fault::Answer(200, "{\"newNonce\": 7}"), nonsense),
        (Resource::Directory, Fault::Answer(404, ""), "the server answered 404 Not Found"),
        (Resource::NewNonce, Fault::Answer(503, ""), "the server answered 503 Service Unavailable"),
        (
            Resource::NewAccount,
            problem(403, "externalAccountRequired"),
            "(externalAccountRequired)",
        ),
        (Resource::NewAccount, Fault::Answer(201, "{}"), "failed to get account URL"),
        (Resource::NewOrder, limited, "the test wants it so (rateLimited)"),
        (Resource::NewOrder, problem(403, "rejectedIdentifier"), "(rejectedIdentifier)"),
        (Resource::NewOrder, Fault::Answer(500, "<h1>oops</h1>"), "the server answered 500 "),
        (Resource::NewOrder, Fault::Answer(201, "<h1>oops</h1>"), nonsense),
        (Resource::Authorization, Fault::Answer(200, "[]"), nonsense),
        (Resource::Challenge, problem(500, "serverInternal"), "(serverInternal)"),
        (Resource::Order, Fault::Answer(200, "{}"), nonsense),
        (Resource::Finalize, problem(400, "badCSR"), "(badCSR)"),
        (Resource::Certificate, Fault::Answer(502, ""), "the server answered 502 Bad Gateway"),
    ];
    let app = App::start().await;
    for (resource, fault, reason) in faults {
        let ca = AcmeServer::start().await;
        ca.fails(resource, fault);
        let mesh = setup(&ca, &app).start().await;
        ca.looks_at(mesh.http(), refusing_addr());
        expect_state(&mesh, NAME, "Failing", reason).await;
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_served_is_not_taken() {
    for (issued, reason) in [
        (Issued::Nonsense, "the certificate that was issued has no certificate"),
        (Issued::ForAnotherKey, "the certificate that was issued is for another key"),
        (Issued::ForAnotherName, "the certificate that was issued is not for shop.example"),
    ] {
        let (app, ca) = (App::start().await, AcmeServer::start().await);
        ca.issues(issued);
        let mesh = setup(&ca, &app).start().await;
        ca.looks_at(mesh.http(), refusing_addr());
        expect_state(&mesh, NAME, "Failing", reason).await;
        assert!(kept(mesh.dir()).iter().all(|it| !it.ends_with("shop.example.pem")));
    }
}

#[tokio::test]
async fn a_nonce_that_was_forgotten_is_tried_again_and_not_for_ever() {
    let bad = || Fault::Problem(400, "badNonce", None);
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    ca.fails(Resource::Finalize, bad());
    let mesh = setup(&ca, &app).start().await;
    ca.looks_at(mesh.http(), refusing_addr());
    expect_state(&mesh, NAME, "OK", "").await;

    let ca = AcmeServer::start().await;
    for _ in 0..4 {
        ca.fails(Resource::NewOrder, bad());
    }
    let mesh = setup(&ca, &app).start().await;
    expect_state(&mesh, NAME, "Failing", "the test wants it so (badNonce)").await;
    assert!(ca.asked(Resource::NewOrder) <= 4);
}

#[tokio::test]
async fn a_proof_that_the_server_does_not_find_is_said_with_its_kind() {
    let (app, ca) = (App::start().await, AcmeServer::start().await);
    let mesh = setup(&ca, &app).listen_tls().start().await;
    ca.looks_at(refusing_addr(), refusing_addr());
    expect_state(&mesh, NAME, "Failing", "TLS-ALPN-01: connect: Connection refused").await;

    let ca = AcmeServer::start().await;
    let mesh = setup(&ca, &app).start().await;
    // Somebody else has the name's port.
    let other = Mesh::of(&[&app]).await;
    ca.looks_at(other.http(), refusing_addr());
    expect_state(&mesh, NAME, "Failing", "HTTP-01: the answer is HTTP/1.1 404").await;
    assert_eq!(ca.orders(), [(NAME.into(), Some("http-01"), "invalid")]);
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_told_nothing() {
    let (app, ca, other) =
        (App::start().await, AcmeServer::start().await, AcmeServer::start().await);
    let setup = setup(&ca, &app);
    fs::write(setup.dir().join("root.pem"), other.root()).unwrap();
    let mesh = setup.start().await;
    expect_state(&mesh, NAME, "Failing", "invalid peer certificate").await;
    assert_eq!(ca.asked(Resource::Directory), 0);
}

// ---- means --------------------------------------------------------------------------------------------------

/// One app at one domain of its own.
fn setup(ca: &AcmeServer, app: &App) -> Setup {
    let setup = Setup::new().shop_with(&[app], "domains = [\"shop.example\"]");
    with_acme(setup, ca, "contact = [\"mailto:ops@example.com\"]")
}

fn with_acme(setup: Setup, ca: &AcmeServer, lines: &str) -> Setup {
    fs::write(setup.dir().join("root.pem"), ca.root()).unwrap();
    let directory = ca.directory();
    let lines = format!(
        "directory = {directory:?}\nagree_to_terms = true\nca_file = \"root.pem\"\n{lines}"
    );
    setup.table("acme", &lines)
}

async fn states(mesh: &Mesh) -> Vec<Value> {
    let answer = mesh.ask_admin("/debug/certs").await;
    serde_json::from_slice::<Vec<Value>>(&answer.body).unwrap()
}

/// Waits until a name stands so; panics if it fails of something else.
async fn expect_state(mesh: &Mesh, name: &str, state: &str, reason: &str) {
    becomes_true(&format!("{name} to be {state}"), async || {
        let states = states(mesh).await;
        let Some(found) = states.iter().find(|it| it["name"] == name) else { return false };
        let found_reason = found["reason"].as_str().unwrap_or_default();
        let failing = found["state"] == "Failing";
        assert!(!failing || state == "Failing", "{name} is failing: {found_reason}");
        let reached = found["state"] == state;
        assert!(!reached || found_reason.contains(reason), "{name} is {state}: {found_reason}");
        reached
    })
    .await;
}

/// A GET by a client that trusts this root alone: the status, or why there is no connection.
async fn get_by_tls(addr: SocketAddr, name: &str, root: &str) -> Result<u16, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = Client::try_connect_tls(addr, &Arc::new(config), name).await;
    let mut client = client.map_err(|error| error.to_string())?;
    client.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
    Ok(client.answer().await.status)
}

/// A client that comes as a server does that checks a name.
fn only_acme() -> Arc<ClientConfig> {
    let roots = RootCertStore::empty();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    Arc::new(config)
}

/// What the daemon keeps of its only server, in the order of names.
fn kept(dir: &Path) -> Vec<PathBuf> {
    let servers = fs::read_dir(dir.join("state/acme")).into_iter().flatten();
    let files = servers.flat_map(|server| fs::read_dir(server.unwrap().path()).unwrap());
    let mut files = files.map(|file| file.unwrap().path()).collect::<Vec<_>>();
    files.sort();
    files
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
