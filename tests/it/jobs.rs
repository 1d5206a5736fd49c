//! What apps run by the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dynomesh::store::Store;

use crate::support::{Mesh, Setup, becomes_true};

fn setup(jobs: &str) -> Setup {
    Setup::new().procfile("shop", "web: TESTAPP\nmail: echo mail\n", jobs)
}

/// Waits for a line that comes with the next minute.
async fn says_within_a_minute(mesh: &Mesh, source: &str, message: &str) {
    let found = async {
        while !mesh
            .lines()
            .iter()
            .any(|line| line.source.starts_with(source) && line.message.contains(message))
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(90), found).await;
    assert!(found.is_ok(), "no line of {source}: {message}");
}

#[tokio::test]
async fn a_job_runs_when_it_is_due_and_not_beside_itself() {
    let jobs = "[[apps.shop.jobs]]\ncommand = \"mail && sleep 1000\"\ncron = \"* * * * *\"\n\
                [[apps.shop.jobs]]\nname = \"short\"\ncommand = \"mail\"\nevery = \"1m\"\n\
                [[apps.shop.jobs]]\nname = \"beside\"\ncommand = \"mail && sleep 1000\"\ncron = \"* * * * *\"\n";
    let mesh = setup(jobs).start().await;
    says_within_a_minute(&mesh, "heroku[scheduler.", "Starting process with command `echo mail`")
        .await;
    says_within_a_minute(&mesh, "app[scheduler.", "mail").await;
    says_within_a_minute(&mesh, "heroku[scheduler.", "State changed from up to complete").await;
    // Two jobs of one command are two jobs.
    becomes_true("both run", async || {
        let ps = mesh.command(&["ps"]).await;
        ps.out.matches("echo mail && sleep 1000").count() == 2
    })
    .await;
    let store = Store::open(&mesh.path("state")).unwrap();
    let seen_to = async |job: &str| store.job_runs().await.unwrap()[&("shop".into(), job.into())];
    let before = seen_to("mail && sleep 1000").await;
    says_within_a_minute(&mesh, "heroku[scheduler]", "Skipped `mail && sleep 1000`: scheduler.")
        .await;
    // What was skipped was not missed; which minute was seen to is known to the next daemon.
    becomes_true("remembered", async || seen_to("mail && sleep 1000").await > before).await;
    let runs = store.job_runs().await.unwrap();
    assert!(runs[&("shop".into(), "short".into())].is_multiple_of(60), "{runs:?}");
}

#[tokio::test]
async fn runs_that_nobody_was_there_for_are_said_and_not_made_up_for() {
    let job = "[[apps.shop.jobs]]\ncommand = \"mail\"\nevery = \"1h\"\n";
    let setup = setup(job);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let store = Store::open(&setup.dir().join("state")).unwrap();
    store.job_seen_to("shop", "mail", now / 3600 * 3600 - 3 * 3600).await.unwrap();
    drop(store);
    let mesh = setup.start().await;
    let line = mesh.says("heroku[scheduler]", "Missed ").await;
    assert_eq!(line.message, "Missed 3 runs of `mail`: no dynomesh was running");
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    assert!(!mesh.lines().iter().any(|line| line.source.starts_with("heroku[scheduler.")));
}
