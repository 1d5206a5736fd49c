//! Numbers of dynos that follow the requests.

use crate::network::in_own_network;
use crate::support::{Load, Mesh, Setup, becomes_true, request};

/// A shop whose web dynos follow its requests.
fn shop(web: &str, rules: &str, lines: &str) -> Setup {
    let rules = format!("autoscale.web = {{ up_after = \"2s\", {rules} }}\n{lines}");
    Setup::new().procfile("shop", &format!("web: {web}\n"), &rules)
}

/// So many clients, each of whom always has a request under way that takes so long.
fn asks(mesh: &Mesh, clients: usize, ms: u32) -> Load {
    Load::start(mesh.http(), clients, &request("GET", &format!("/sleep?ms={ms}"), "", ""))
}

async fn scaled(mesh: &Mesh, to: u32, direction: &str) -> String {
    let line = format!("Scaled to web@{to}:basic by autoscale, {direction}: ");
    mesh.says("heroku[autoscale]", &line).await.message
}

async fn web_dynos_up(mesh: &Mesh, count: usize) {
    let what = format!("{count} web dynos to be up, and no others");
    becomes_true(&what, async || {
        let known = mesh.known().await;
        known.len() == count && known.iter().all(|dyno| dyno.state == "up")
    })
    .await;
}

#[tokio::test]
async fn a_crowd_has_more_dynos_and_quiet_has_fewer_and_no_request_is_lost() {
    let rules = "max = 3, target = \"in_flight 2\", down_after = \"3s\"";
    let mesh = shop("TESTAPP", rules, "").start().await;
    web_dynos_up(&mesh, 1).await;
    let few = asks(&mesh, 1, 20);
    let crowd = asks(&mesh, 8, 100);
    let line = scaled(&mesh, 2, "up").await;
    assert!(line.contains("target=\"in_flight 2\" in_flight="), "{line}");
    for figure in [" p95=", " queue=", " held=0 ", " rate=", " over="] {
        assert!(line.contains(figure), "{line}");
    }
    scaled(&mesh, 3, "up").await;
    mesh.says("heroku[autoscale]", "Target of web is missed, and there may be no more dynos").await;
    web_dynos_up(&mesh, 3).await;

    let crowd = crowd.stop().await;
    scaled(&mesh, 2, "down").await;
    mesh.says("heroku[web.3]", "Process exited with status 143").await;
    scaled(&mesh, 1, "down").await;
    mesh.says("heroku[web.2]", "Process exited with status 143").await;
    web_dynos_up(&mesh, 1).await;
    let few = few.stop().await;
    assert!(crowd.fine > 0 && few.fine > 0);
    assert_eq!((crowd.broken, crowd.refused, few.broken, few.refused), (0, 0, 0, 0));
    for (direction, steps) in [("up", 2.0), ("down", 2.0)] {
        let labels = [("app", "shop"), ("type", "web"), ("direction", direction)];
        mesh.metric_becomes("dynomesh_autoscale_steps_total", &labels, steps).await;
    }
}

/// An app that accepts one connection at a time has the others wait in its kernel's queue, where no router sees them.
#[tokio::test]
async fn who_waits_to_be_accepted_is_seen() {
    sees_who_waits(one_by_one("ONE_BY_ONE=1 TESTAPP")).await;
}

/// Where the kernel answers only whoever asks from within.
#[tokio::test]
async fn who_waits_to_be_accepted_in_a_network_of_the_dynos_own_is_seen_too() {
    if in_own_network() {
        sees_who_waits(one_by_one("BIND=0.0.0.0 ONE_BY_ONE=1 TESTAPP").private()).await;
    }
}

fn one_by_one(web: &str) -> Setup {
    let rules = "max = 2, target = \"queue 50ms\"";
    shop(web, rules, "timeouts = { dyno_keepalive = \"0s\" }")
}

async fn sees_who_waits(setup: Setup) {
    let mesh = setup.start().await;
    web_dynos_up(&mesh, 1).await;
    let crowd = asks(&mesh, 8, 100);
    let line = scaled(&mesh, 2, "up").await;
    let queue = line.split(" queue=").nth(1).and_then(|it| it.split("ms").next());
    assert!(queue.unwrap().parse::<u32>().unwrap() > 50, "{line}");
    let crowd = crowd.stop().await;
    assert_eq!((crowd.broken, crowd.refused), (0, 0));
}

#[tokio::test]
async fn what_more_dynos_do_not_mend_is_left_alone_and_said() {
    let rules = "max = 20, target = \"p95 100ms\"";
    let mesh = shop("TESTAPP", rules, "").start().await;
    web_dynos_up(&mesh, 1).await;
    let crowd = asks(&mesh, 16, 300);
    scaled(&mesh, 2, "up").await;
    let of_no_use = "Target of web is missed, and the last dynos were of no use";
    mesh.says("heroku[autoscale]", of_no_use).await;
    let crowd = crowd.stop().await;
    assert_eq!((crowd.broken, crowd.refused), (0, 0));
}

#[tokio::test]
async fn the_number_outlives_reloads_and_the_daemon() {
    let rules = |max: u32| format!("max = {max}, target = \"in_flight 2\", down_after = \"10m\"");
    let mut mesh = shop("TESTAPP", &rules(2), "").start().await;
    web_dynos_up(&mesh, 1).await;
    let crowd = asks(&mesh, 8, 100);
    scaled(&mesh, 2, "up").await;
    web_dynos_up(&mesh, 2).await;
    crowd.stop().await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        let lines = format!("autoscale.web = {{ {} }}", rules(3));
        setup.procfile("shop", "web: TESTAPP\n", &lines)
    })
    .await;
    web_dynos_up(&mesh, 2).await;
    let mesh = mesh.killed().await.start().await;
    for dyno in ["heroku[web.1]", "heroku[web.2]"] {
        mesh.says(dyno, "Adopted, up since ").await;
    }
    web_dynos_up(&mesh, 2).await;
    assert!(!mesh.lines().iter().any(|line| line.message.starts_with("Stopping")));
}
