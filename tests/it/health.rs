//! Dynos that are asked how they are.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{Mesh, Setup, becomes_true};

/// An app that is not well while a file `unwell` is there, and one of whose dynos while `unwell.DYNO` is.
fn frail(lines: &str) -> Setup {
    let setup = Setup::new();
    let file = setup.dir().join("unwell");
    let health =
        format!("health = \"/well?unless={}\"\nhealth_interval = \"100ms\"", file.display());
    setup.procfile("shop", "web: TESTAPP\n", &format!("{health}\nunhealthy_after = 2\n{lines}"))
}

async fn answering(mesh: &Mesh) -> BTreeSet<String> {
    let mut client = mesh.client().await;
    let mut dynos = BTreeSet::new();
    for _ in 0..30 {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 200);
        dynos.insert(answer.text().to_string());
    }
    dynos
}

#[tokio::test]
async fn a_dyno_that_is_not_well_gets_no_requests_until_it_is() {
    let mesh = frail("formation = { web = 2 }").start().await;
    for dyno in ["web.1", "web.2"] {
        mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    }
    let pid = mesh.get("/pid").await.text().to_string();
    fs::write(mesh.path("unwell.web.1"), "").unwrap();
    mesh.says("heroku[web.1]", "was answered 503, 2 times in a row").await;
    assert_eq!(answering(&mesh).await, ["web.2".to_string()].into());
    let failures = mesh
        .metrics()
        .await
        .get("dynomesh_dyno_health_failures_total", &[("app", "shop"), ("type", "web")]);
    assert!(failures >= 2.0, "{failures}");
    fs::remove_file(mesh.path("unwell.web.1")).unwrap();
    mesh.says("heroku[web.1]", "Healthy again").await;
    assert_eq!(answering(&mesh).await.len(), 2);
    let still_there = async || mesh.get("/pid").await.text() == pid;
    becomes_true("the same process to answer", still_there).await;
}

#[tokio::test]
async fn where_no_dyno_is_well_all_of_them_get_requests() {
    let mesh = frail("formation = { web = 2 }").start().await;
    for dyno in ["web.1", "web.2"] {
        mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    }
    fs::write(mesh.path("unwell"), "").unwrap();
    mesh.line("the last dyno to be unhealthy", |line| {
        line.message.starts_with("No dyno of the app is healthy").then_some(())
    })
    .await;
    assert_eq!(answering(&mesh).await.len(), 2);
}

#[tokio::test]
async fn a_dyno_that_is_unwell_for_long_is_restarted() {
    let mesh = frail("restart_after = 4").start().await;
    let pid = mesh.get("/pid").await.text().to_string();
    fs::write(mesh.path("unwell"), "").unwrap();
    mesh.says("heroku[web.1]", "Restarting: not well 4 times in a row").await;
    fs::remove_file(mesh.path("unwell")).unwrap();
    becomes_true("another process to answer", async || {
        let answer = mesh.get("/pid").await;
        assert_eq!(answer.status, 200);
        answer.text() != pid
    })
    .await;
}

#[tokio::test]
async fn a_dyno_that_accepts_and_is_not_well_is_not_up() {
    let setup =
        frail("timeouts = { boot = \"500ms\", cool_off = \"100ms\", cool_off_max = \"100ms\" }");
    fs::write(setup.dir().join("unwell"), "").unwrap();
    let mesh = setup.start().await;
    mesh.says("app[web.1]", "listening on ").await;
    mesh.says(
        "heroku[web.1]",
        "Error R10 (Boot timeout) -> Web process failed to answer GET /well",
    )
    .await;
    fs::remove_file(mesh.path("unwell")).unwrap();
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
}
