//! Dynos that dynomesh runs: their environment, their states, and everything that they can do wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::support::{
    App, Load, Mesh, Setup, becomes_true, file_appears, refusing_addr, request, within,
};

/// Cool-offs short enough to be waited for.
const COOL: &str =
    "timeouts = { cool_off = \"200ms\", cool_off_max = \"400ms\", boot = \"1s\", exit = \"1s\" }";

async fn shop(procfile: &str, lines: &str) -> Mesh {
    Setup::new().procfile("shop", procfile, &format!("{lines}\n{COOL}")).start().await
}

fn messages(mesh: &Mesh, source: &str) -> Vec<String> {
    mesh.lines()
        .iter()
        .filter(|line| line.source == source)
        .map(|line| line.message.clone())
        .collect()
}

// ---- a dyno's life ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dyno_is_started_and_says_so() {
    let mesh = shop("web: TESTAPP\n", "").await;
    let answer = mesh.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "web.1"));
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    let said = messages(&mesh, "heroku[web.1]");
    assert!(said[0].starts_with("Starting process with command `"), "{said:?}");
    assert_eq!(said[1], "State changed from starting to up");
    let line = mesh.says("app[web.1]", "listening on ").await;
    assert_eq!(line.app, "shop");
}

/// A script that starts the daemon in the background has it ignore SIGINT and SIGQUIT, and `nohup` SIGHUP.
#[tokio::test]
async fn what_the_daemon_was_started_to_ignore_its_dynos_do_not() {
    let setup =
        Setup::new().before("trap '' HUP INT QUIT PIPE USR1 USR2 TSTP TTIN TTOU; exec").procfile(
            "shop",
            "worker: grep SigIgn: /proc/self/status; exec sleep 1000\n",
            &format!("formation = {{ worker = 1 }}\n{COOL}"),
        );
    let mesh = setup.start().await;
    let of_daemon = format!("/proc/{}/status", mesh.pid().as_raw_nonzero());
    let of_daemon = fs::read_to_string(of_daemon).unwrap();
    assert!(!of_daemon.contains("SigIgn:\t0000000000000000"), "{of_daemon}");
    let of_dyno = mesh.says("app[worker.1]", "SigIgn:").await;
    assert_eq!(of_dyno.message, "SigIgn:\t0000000000000000");
}

#[tokio::test]
async fn a_dynos_environment_is_the_configurations() {
    let setup = Setup::new().procfile(
        "shop",
        "web: TESTAPP\n",
        "env_file = \"shop/.env\"\n[apps.shop.config]\nFROM_CONFIG = \"a b\"\nBOTH = \"config\"",
    );
    fs::write(setup.dir().join("shop/.env"), "FROM_FILE='x y'\nBOTH=file\n").unwrap();
    let mesh = setup.start().await;
    let ask = async |name: &str| mesh.get(&format!("/env?name={name}")).await.text().to_string();
    assert_eq!(ask("DYNO").await, "web.1");
    assert_eq!(ask("FROM_CONFIG").await, "a b");
    assert_eq!(ask("FROM_FILE").await, "x y");
    assert_eq!(ask("BOTH").await, "config");
    assert_eq!(ask("HEROKU_APP_NAME").await, "shop");
    assert!(ask("PORT").await.parse::<u16>().is_ok());
    assert_ne!(ask("PATH").await, "(unset)");
}

#[tokio::test]
async fn each_dyno_of_a_formation_is_routed_to() {
    let mesh =
        shop("web: TESTAPP\nworker: exec sleep 60\n", "formation = { web = 3, worker = 1 }").await;
    let mut seen = std::collections::BTreeSet::new();
    for dyno in ["web.1", "web.2", "web.3", "worker.1"] {
        mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    }
    let mut client = mesh.client().await;
    for _ in 0..60 {
        seen.insert(client.get("/").await.text().to_string());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["web.1", "web.2", "web.3"]);
}

#[tokio::test]
async fn a_worker_is_up_at_once_and_has_no_port() {
    let mesh =
        shop("worker: echo port=${PORT-none}; exec sleep 60\n", "formation = { worker = 1 }").await;
    mesh.says("heroku[worker.1]", "State changed from starting to up").await;
    mesh.says("app[worker.1]", "port=none").await;
}

// ---- boot -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dyno_that_never_binds_is_r10() {
    let mesh = shop("web: NEVER_BIND=1 TESTAPP\n", "").await;
    mesh.says("heroku[web.1]", "Error R10 (Boot timeout)").await;
    mesh.says("heroku[web.1]", "Stopping process with SIGKILL").await;
    mesh.says("heroku[web.1]", "Process exited with status 137").await;
    mesh.says("heroku[web.1]", "State changed from starting to crashed").await;
    assert_eq!(
        mesh.metrics()
            .await
            .find("dynomesh_errors_total", &[("app", "shop"), ("code", "R10")])
            .map(|it| it >= 1.0),
        Some(true)
    );
}

#[tokio::test]
async fn a_dyno_that_binds_late_is_waited_for() {
    let mesh = shop("web: BIND_AFTER_MS=600 TESTAPP\n", "").await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
    let said = messages(&mesh, "heroku[web.1]");
    assert!(!said.iter().any(|line| line.contains("R10")), "{said:?}");
}

#[tokio::test]
async fn a_dyno_that_exits_during_boot_has_crashed() {
    let mesh = shop("web: CRASH_DURING_BOOT=1 EXIT_CODE=7 TESTAPP\n", "").await;
    mesh.says("heroku[web.1]", "Process exited with status 7").await;
    mesh.says("heroku[web.1]", "State changed from starting to crashed").await;
    mesh.says_times("heroku[web.1]", "State changed from crashed to starting", 2).await;
}

/// Any end of a formation's process is a crash, status 0 included.
#[tokio::test]
async fn a_dyno_that_exits_with_0_has_crashed() {
    let mesh = shop("web: TESTAPP\n", "").await;
    assert_eq!(mesh.get("/exit-idle?code=0").await.status, 200);
    mesh.says("heroku[web.1]", "Process exited with status 0").await;
    mesh.says("heroku[web.1]", "State changed from up to crashed").await;
    assert_eq!(mesh.get("/").await.text(), "web.1", "and it is back");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_a_crash() {
    for command in ["/nonexistent/command", "exec ./Procfile", "."] {
        let mesh = shop(&format!("web: {command}\n"), "").await;
        mesh.says("heroku[web.1]", "Process exited with status").await;
        mesh.says("heroku[web.1]", "State changed from starting to crashed").await;
    }
}

/// The beginning of a program for a processor that this machine has not.
#[tokio::test]
async fn a_program_for_another_processor_is_a_crash() {
    let setup = Setup::new().procfile("shop", "web: exec ./program\n", COOL);
    let machine = if cfg!(target_arch = "x86_64") { 243 } else { 62 };
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    program.extend([machine, 0, 1, 0, 0, 0]);
    program.resize(4096, 0);
    let path = setup.dir().join("shop/program");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mesh = setup.start().await;
    mesh.says("heroku[web.1]", "Process exited with status 12").await;
    mesh.says("heroku[web.1]", "State changed from starting to crashed").await;
    let said = messages(&mesh, "app[web.1]");
    assert!(said.iter().any(|line| line.contains("program")), "nobody says why: {said:?}");
}

#[tokio::test]
async fn a_port_that_somebody_else_took_is_not_lent() {
    // A port of the lent range, taken on all addresses.
    let taken = (20_000..30_000)
        .find_map(|port| std::net::TcpListener::bind(("0.0.0.0", port)).ok())
        .unwrap();
    let mesh = shop("web: TESTAPP\n", "formation = { web = 3 }").await;
    for dyno in 1..=3 {
        mesh.says(&format!("heroku[web.{dyno}]"), "State changed from starting to up").await;
    }
    let port = taken.local_addr().unwrap().port().to_string();
    for _ in 0..20 {
        assert_ne!(mesh.get("/env?name=PORT").await.text(), port);
    }
}

// ---- crashes ----------------------------------------------------------------------------------------------

/// Out of the table at once, back as soon as it is up, and a request meanwhile waits.
#[tokio::test]
async fn a_dyno_that_crashes_leaves_the_table_and_comes_back() {
    let mesh = shop("web: TESTAPP\n", "").await;
    let pid = mesh.get("/pid").await.text().to_string();
    kill(&pid);
    mesh.says("heroku[web.1]", "Process exited with status 137").await;
    let answer = mesh.get("/pid").await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.text(), pid);
    mesh.says("heroku[web.1]", "State changed from up to crashed").await;
    mesh.says("heroku[web.1]", "State changed from crashed to starting").await;
    let restarts = mesh
        .metrics()
        .await
        .get("dynomesh_dyno_restarts_total", &[("app", "shop"), ("type", "web")]);
    assert_eq!(restarts, 1.0);
}

/// By the time that anybody can read that a dyno has crashed, no request is sent to it; and when it was the last one,
/// none waits for it.
#[tokio::test]
async fn a_dyno_that_is_said_to_have_crashed_gets_no_request() {
    let lines = "formation = { web = 2 }\ntimeouts = { cool_off = \"1h\", cool_off_max = \"1h\" }";
    let procfile = "web: echo pid=$$; exec TESTAPP\n";
    let mesh = Setup::new().procfile("shop", procfile, lines).start().await;
    mesh.says("heroku[web.2]", "State changed from starting to up").await;
    crash_twice(&mesh, "web.1").await;
    let mut client = mesh.client().await;
    // Of two dynos both are looked at for each request.
    for number in 0..5 {
        let target = format!("/{number}");
        assert_eq!(client.get(&target).await.text(), "web.2");
        let line = mesh.request(&target).await;
        line.has(&["dyno=web.2", "status=200"]);
        assert_eq!(line.find("retries"), None, "{}", line.line.text);
    }
    crash_twice(&mesh, "web.2").await;
    client.get("/nobody").await.is_refusal(503, "H10");
    mesh.request("/nobody").await.has(&["dyno=", "connect=", "service="]);
}

/// Kills a dyno that prints its process's id, and its successor; what comes next comes after the cool-off.
async fn crash_twice(mesh: &Mesh, dyno: &str) {
    let (about, output) = (format!("heroku[{dyno}]"), format!("app[{dyno}]"));
    for crash in 1..=2 {
        mesh.says_times(&about, "State changed from starting to up", crash).await;
        mesh.says_times(&output, "pid=", crash).await;
        let said = messages(mesh, &output);
        let pid = said.iter().rev().find_map(|message| message.strip_prefix("pid="));
        kill(pid.expect("it says so at each start"));
        mesh.says_times(&about, "State changed from up to crashed", crash).await;
    }
}

fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// Crash truth: the request's line says how the process ended.
#[tokio::test]
async fn a_request_lost_to_a_crash_says_how_the_dyno_ended() {
    let mesh = shop("web: TESTAPP\n", "").await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    // Not safe, so not tried elsewhere.
    mesh.client().await.request("POST", "/exit?code=3", "", "").await.is_refusal(503, "H13");
    mesh.request("/exit?code=3").await.has(&["code=H13", "dyno=web.1", "status=503", "exit=3"]);
    mesh.says_times("heroku[web.1]", "State changed from starting to up", 2).await;
    mesh.client().await.request("POST", "/abort", "", "").await.is_refusal(503, "H13");
    let line = mesh.request("/abort").await;
    line.has(&["code=H13", "dyno=web.1"]);
    assert!(["6", "SIGABRT", "ABRT"].contains(&line.get("signal")), "{}", line.line.text);
}

#[tokio::test]
async fn an_answer_cut_by_a_crash_says_how_the_dyno_ended() {
    let mesh = shop("web: TESTAPP\n", "").await;
    let pid = mesh.get("/pid").await.text().to_string();
    let mut client = mesh.client().await;
    client.send(request("GET", "/stall", "", "")).await;
    assert_eq!(client.head().await.status, 200);
    client.exactly(4).await;
    kill(&pid);
    let _ = client.rest_and_end().await;
    let line = mesh.request("/stall").await;
    line.has(&["sock=backend", "code=H18", "status=200", "bytes=4"]);
    assert!(["9", "SIGKILL", "KILL"].contains(&line.get("signal")), "{}", line.line.text);
}

/// kill -9 of one of three dynos: GETs are not lost, POSTs at most those that it held, and none twice.
#[tokio::test]
async fn killing_one_of_three_dynos_loses_no_get() {
    let mesh = shop("web: TESTAPP\n", "formation = { web = 3 }").await;
    for dyno in 1..=3 {
        mesh.says(&format!("heroku[web.{dyno}]"), "State changed from starting to up").await;
    }
    let load = Load::start(mesh.http(), 20, &request("GET", "/", "", ""));
    load.carries(200).await;
    for killed in 1..=5 {
        kill(mesh.get("/pid").await.text());
        // All three are up before the next one goes: without any there would be nobody to ask.
        let restarts = [("app", "shop"), ("type", "web")];
        mesh.metric_becomes("dynomesh_dyno_restarts_total", &restarts, f64::from(killed)).await;
        let up = [("app", "shop"), ("type", "web"), ("state", "up")];
        mesh.metric_becomes("dynomesh_dynos", &up, 3.0).await;
        load.carries(300).await;
    }
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
}

#[tokio::test]
async fn killing_one_of_three_dynos_loses_at_most_the_posts_it_held() {
    let mesh = shop("web: TESTAPP\n", "formation = { web = 3 }").await;
    for dyno in 1..=3 {
        mesh.says(&format!("heroku[web.{dyno}]"), "State changed from starting to up").await;
    }
    let load = Load::start(mesh.http(), 20, &request("POST", "/echo", "", "body"));
    load.carries(200).await;
    kill(mesh.get("/pid").await.text());
    load.carries(500).await;
    let tally = load.stop().await;
    assert_eq!(tally.broken, 0, "each is answered: {tally:?}");
    assert!(tally.refused <= 20, "{tally:?}");
    let lost = mesh.requests("/echo").into_iter().filter(|it| it.get("status") != "200");
    for line in lost {
        assert!(["H13", "H18"].contains(&line.get("code")), "{}", line.line.text);
        assert_eq!(line.find("retries"), None, "{}", line.line.text);
    }
}

// ---- stopping ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dyno_that_ignores_sigterm_is_r12() {
    let procfile = "web: trap '' TERM; TESTAPP & wait; wait; wait\n";
    let mut mesh = shop(procfile, "formation = { web = 1 }").await;
    assert_eq!(mesh.get("/").await.status, 200);
    let text = mesh.setup().text().replace("web = 1", "web = 0");
    mesh.reload_text(&text, "ok").await;
    mesh.says("heroku[web.1]", "State changed from up to down").await;
    mesh.says("heroku[web.1]", "Stopping all processes with SIGTERM").await;
    mesh.says("heroku[web.1]", "Error R12 (Exit timeout)").await;
    mesh.says("heroku[web.1]", "Stopping remaining processes with SIGKILL").await;
    mesh.says("heroku[web.1]", "Process exited with status 137").await;
    becomes_true("all its processes to be gone", async || mesh.dynos().is_empty()).await;
}

/// SIGTERM goes to every process of the dyno, and what is left after its end goes, too.
#[tokio::test]
async fn a_grandchild_does_not_outlive_its_dyno() {
    let mut mesh = shop("web: GRANDCHILD=1 TESTAPP\n", "formation = { web = 1 }").await;
    assert_eq!(mesh.get("/").await.status, 200);
    let text = mesh.setup().text().replace("web = 1", "web = 0");
    mesh.reload_text(&text, "ok").await;
    mesh.says("heroku[web.1]", "Process exited with status").await;
    becomes_true("all its processes to be gone", async || mesh.dynos().is_empty()).await;
}

/// A grandchild that holds stdout open must not hold up the news that the dyno crashed.
#[tokio::test]
async fn a_grandchild_with_stdout_does_not_hide_a_crash() {
    let mesh = shop("web: GRANDCHILD=1 TESTAPP\n", "").await;
    mesh.client().await.request("POST", "/exit?code=4", "", "").await.is_refusal(503, "H13");
    mesh.says("heroku[web.1]", "Process exited with status 4").await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
}

// ---- output -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn each_line_of_output_is_a_line_of_the_log() {
    let mesh = shop("web: echo one; echo two >&2; printf 'no end'; exec TESTAPP\n", "").await;
    mesh.says("app[web.1]", "one").await;
    mesh.says("app[web.1]", "two").await;
    mesh.says("app[web.1]", "no endlistening on").await;
    assert_eq!(mesh.get("/print?line=a%1b%5b31mb").await.status, 200);
    mesh.says("app[web.1]", "31mb").await;
}

#[tokio::test]
async fn a_line_beyond_all_measure_is_cut_into_several() {
    // So much output may take longer than the short boots of the other tests, on a busy machine.
    let setup = Setup::new().procfile("shop", "web: LONG_LINE=10000000 TESTAPP\n", "");
    let mesh = setup.start().await;
    assert_eq!(mesh.get("/").await.status, 200);
    let print_until = async |source: &str, message: &str| {
        becomes_true(message, async || {
            mesh.get("/print?line=heard").await;
            mesh.lines().iter().any(|line| line.says(source, message))
        })
        .await;
    };
    print_until("app[web.1]", "heard").await;
    let pieces = messages(&mesh, "app[web.1]").into_iter().filter(|it| it.starts_with("xxx"));
    let lengths = pieces.map(|it| it.len()).collect::<Vec<_>>();
    assert!(lengths.iter().all(|length| *length <= 10_000), "{lengths:?}");
    if lengths.iter().sum::<usize>() < 10_000_000 {
        // It is spoken of with one of the next lines that fit.
        print_until("heroku[web.1]", "Error L10 (output buffer overflow): ").await;
    }
}

#[tokio::test]
async fn output_that_is_no_text_is_printed_all_the_same() {
    let mesh = shop("web: NOT_UTF8=1 TESTAPP\n", "").await;
    mesh.says("app[web.1]", "red").await;
    assert_eq!(mesh.get("/").await.status, 200);
}

/// A dyno that prints faster than anyone reads is neither blocked for good nor in the way of its neighbours.
#[tokio::test]
async fn a_dyno_that_fills_its_pipe_goes_on() {
    let setup = Setup::new().procfile("loud", "web: FILL_STDOUT=200000 TESTAPP\n", "");
    let mesh = setup.procfile("shop", "web: TESTAPP\n", "").start().await;
    for _ in 0..20 {
        assert_eq!(mesh.get("/").await.text(), "web.1");
    }
    let mut client = mesh.client().await;
    client.send("GET / HTTP/1.1\r\nHost: loud.localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "web.1");
    mesh.line("the last of it, or that some was dropped", |line| {
        (line.app == "loud"
            && (line.message.contains("filler 199999") || line.message.contains("L10")))
        .then_some(())
    })
    .await;
}

// ---- scaling ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_formation_is_scaled_up_and_down_by_reloads() {
    let mut mesh = shop("web: TESTAPP\n", "formation = { web = 1 }").await;
    assert_eq!(mesh.get("/").await.status, 200);
    let pid = mesh.get("/pid").await.text().to_string();
    let scaled = |mesh: &Mesh, count: u32| {
        mesh.setup().text().replace("web = 1 ", &format!("web = {count} "))
    };
    let text = scaled(&mesh, 3);
    mesh.reload_text(&text, "ok").await;
    mesh.metric_becomes(
        "dynomesh_dynos",
        &[("app", "shop"), ("type", "web"), ("state", "up")],
        3.0,
    )
    .await;
    assert!(
        mesh.dynos().iter().any(|it| it.as_raw_nonzero().to_string() == pid),
        "web.1 was not touched"
    );
    let text = scaled(&mesh, 1);
    mesh.reload_text(&text, "ok").await;
    for dyno in ["web.2", "web.3"] {
        mesh.says(&format!("heroku[{dyno}]"), "State changed from up to down").await;
        mesh.says(&format!("heroku[{dyno}]"), "Stopping all processes with SIGTERM").await;
        mesh.says(&format!("heroku[{dyno}]"), "Process exited with status 143").await;
    }
    assert_eq!(mesh.get("/pid").await.text(), pid);
}

/// Scaled away under load: told to the router before it is told to the process.
#[tokio::test]
async fn scaling_under_load_breaks_no_request() {
    let mut mesh = shop("web: TESTAPP\n", "formation = { web = 1 }").await;
    assert_eq!(mesh.get("/").await.status, 200);
    let load = Load::start(mesh.http(), 20, &request("POST", "/echo", "", "body"));
    load.carries(100).await;
    let original = mesh.setup().text();
    for count in [3, 1, 4, 2, 1] {
        mesh.reload_text(&original.replace("web = 1 ", &format!("web = {count} ")), "ok").await;
        let up = [("app", "shop"), ("type", "web"), ("state", "up")];
        mesh.metric_becomes("dynomesh_dynos", &up, f64::from(count)).await;
        load.carries(200).await;
    }
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
}

/// A dyno that is scaled away finishes what it holds before it hears of SIGTERM.
#[tokio::test]
async fn a_dyno_that_is_scaled_away_finishes_its_requests_first() {
    let mut mesh = shop("web: TESTAPP\n", "formation = { web = 1 }").await;
    let released = mesh.path("released");
    let mut client = mesh.client().await;
    client.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop"), ("dyno", "web.1")], 1.0).await;
    let text = mesh.setup().text().replace("web = 1", "web = 0");
    mesh.reload_text(&text, "ok").await;
    mesh.says("heroku[web.1]", "State changed from up to down").await;
    mesh.get("/").await.is_refusal(503, "H14");
    let said = messages(&mesh, "heroku[web.1]");
    assert!(!said.iter().any(|line| line.contains("SIGTERM")), "{said:?}");
    fs::write(released, "").unwrap();
    assert_eq!(client.answer().await.text(), "released");
    mesh.says("heroku[web.1]", "Process exited with status 143").await;
}

#[tokio::test]
async fn the_drain_of_a_dyno_is_bounded() {
    let lines =
        format!("formation = {{ web = 1 }}\n{}", COOL.replace("{ ", "{ drain = \"500ms\", "));
    let mut mesh = Setup::new().procfile("shop", "web: TESTAPP\n", &lines).start().await;
    let mut client = mesh.client().await;
    client.send(request("POST", "/sleep?ms=600000", "", "")).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop"), ("dyno", "web.1")], 1.0).await;
    let text = mesh.setup().text().replace("web = 1", "web = 0");
    mesh.reload_text(&text, "ok").await;
    mesh.says("heroku[web.1]", "Process exited with status 143").await;
    client.answer().await.is_refusal(503, "H13");
}

#[tokio::test]
async fn scaling_to_nothing_tells_those_who_wait() {
    let mut mesh = shop("web: NEVER_BIND=1 TESTAPP\n", "formation = { web = 1 }").await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/held", "", "")).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
    let text = mesh.setup().text().replace("web = 1", "web = 0");
    mesh.reload_text(&text, "ok").await;
    within("the held request", client.answer()).await.is_refusal(503, "H14");
}

/// A changed config var means a new process; requests are held or served meanwhile, never lost.
#[tokio::test]
async fn a_changed_config_var_restarts_the_dynos_without_a_loss() {
    let config = "formation = { web = 2 }\n[apps.shop.config]\nGREETING = \"first\"";
    let mut mesh = Setup::new().procfile("shop", "web: TESTAPP\n", config).start().await;
    assert_eq!(mesh.get("/env?name=GREETING").await.text(), "first");
    let load = Load::start(mesh.http(), 10, &request("POST", "/echo", "", "body"));
    load.carries(100).await;
    let text = mesh.setup().text().replace("first", "second");
    mesh.reload_text(&text, "ok").await;
    for dyno in ["heroku[web.1]", "heroku[web.2]"] {
        mesh.says(dyno, "Restarting").await;
        mesh.says(dyno, "Process exited with status 143").await;
    }
    for _ in 0..10 {
        assert_eq!(mesh.get("/env?name=GREETING").await.text(), "second");
    }
    load.carries(100).await;
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
}

/// The second release does not wait for the first one's dynos, nor do both go on.
#[tokio::test]
async fn a_release_during_another_is_the_one_that_stays() {
    let config = "formation = { web = 2 }\n[apps.shop.config]\nGREETING = \"first\"";
    let procfile = "web: BIND_AFTER_MS=500 TESTAPP\n";
    let mut mesh = Setup::new().procfile("shop", procfile, config).start().await;
    assert_eq!(mesh.get("/env?name=GREETING").await.text(), "first");
    let load = Load::start(mesh.http(), 10, &request("POST", "/echo", "", "body"));
    load.carries(50).await;
    let text = mesh.setup().text();
    mesh.reload_text(&text.replace("first", "second"), "ok").await;
    mesh.line("that the first one begins", |line| {
        line.message.contains("Restarting").then_some(())
    })
    .await;
    mesh.reload_text(&text.replace("first", "third"), "ok").await;
    becomes_true("all dynos to be of the last release", async || {
        let known = mesh.known().await;
        let settled = known.len() == 2 && known.iter().all(|dyno| dyno.state == "up");
        let mut greetings = Vec::new();
        for _ in 0..8 {
            greetings.push(mesh.get("/env?name=GREETING").await.text().to_owned());
        }
        settled && greetings.iter().all(|greeting| greeting == "third")
    })
    .await;
    load.carries(50).await;
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
}

// ---- somebody else's dynos --------------------------------------------------------------------------------

/// An app that somebody else runs dies and comes back: nothing here restarts it, and it is found again.
#[tokio::test]
async fn an_external_dyno_that_comes_back_is_used_again() {
    let port = refusing_addr().port();
    let mut app = App::start_on(port).await;
    let mesh = Mesh::of(&[&app]).await;
    assert_eq!(mesh.get("/").await.status, 200);
    app.kill().await;
    assert_eq!(mesh.get("/").await.code(), Some("H21"));
    let back = App::start_on(port).await;
    becomes_true("the dyno to be used again", async || mesh.get("/").await.status == 200).await;
    assert!(back.count().await > 0);
}

#[tokio::test]
async fn a_side_effect_after_the_deadline_is_there() {
    let lines = "timeouts = { first_byte = \"300ms\" }";
    let mesh = Setup::new().procfile("shop", "web: TESTAPP\n", lines).start().await;
    assert_eq!(mesh.get("/").await.status, 200);
    let touched = mesh.path("touched");
    mesh.get(&format!("/late?ms=1000&touch={}", touched.display())).await.is_refusal(503, "H12");
    assert!(!touched.exists());
    file_appears(&touched).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop"), ("dyno", "web.1")], 0.0).await;
}
