//! WebSockets to an echo, held and used as somebody says who weighs the proxy meanwhile.
//!
//! `websockets --connections N [--certificate FILE] ADDRESS PATH`, driven by lines on standard input: `each`
//! opens the sockets and sends one message on each, one after the other; `echo S` has one message in flight on
//! each for S seconds. Each is answered by `done FAILURES`; the end of the input ends the program.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use compare_tools::options::Options;
use compare_tools::socket::Socket;
use compare_tools::target::Target;
use tokio::task::LocalSet;
use tokio::time::Instant;

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(drive()))
}

async fn drive() -> Result<(), String> {
    let options = Options::parse()?;
    let [addr, path] = options.rest.as_slice() else {
        return Err("usage: websockets --connections N [--certificate FILE] ADDRESS PATH".into());
    };
    let target = Target::from_options(&options, addr)?;
    let connections: usize = options.require("connections")?;
    let mut sockets: Vec<Socket> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let failures = match line.split_once(' ') {
            None if line == "each" => open(&target, path, connections, &mut sockets).await,
            Some(("echo", seconds)) => {
                let seconds = seconds.parse().map_err(|_| format!("{seconds} is no number"))?;
                echo(&mut sockets, Duration::from_secs_f64(seconds)).await?
            }
            _ => return Err(format!("{line:?} is neither each nor echo S")),
        };
        println!("done {failures}");
    }
    Ok(())
}

async fn open(target: &Target, path: &str, connections: usize, sockets: &mut Vec<Socket>) -> usize {
    while sockets.len() < connections {
        // What does not open is left out.
        match Socket::open(target, path).await {
            Ok(socket) => sockets.push(socket),
            Err(_) => return connections - sockets.len(),
        }
    }
    0
}

/// A socket that failed is not used again.
async fn echo(sockets: &mut Vec<Socket>, duration: Duration) -> Result<usize, String> {
    let end = Instant::now() + duration;
    let before = sockets.len();
    let tasks = sockets.drain(..).map(|mut socket| {
        tokio::task::spawn_local(async move {
            while Instant::now() < end {
                socket.echo().await.ok()?;
            }
            Some(socket)
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        sockets.extend(task.await.map_err(|error| error.to_string())?);
    }
    Ok(before - sockets.len())
}
