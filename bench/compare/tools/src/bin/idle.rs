//! Holds keep-alive connections, so that somebody can weigh the proxy meanwhile.
//!
//! `idle --connections N [--certificate FILE] ADDRESS PATH`, driven by lines on standard input: `each` sends
//! one request on each connection, one after the other; `burst` sends one on every connection at once. Each is
//! answered by `done FAILURES`; the end of the input ends the program.

use std::io::BufRead;
use std::process::ExitCode;
use std::rc::Rc;

use compare_tools::client::{self, Client};
use compare_tools::options::Options;
use compare_tools::target::Target;
use tokio::task::LocalSet;

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(drive()))
}

async fn drive() -> Result<(), String> {
    let options = Options::parse()?;
    let [addr, path] = options.rest.as_slice() else {
        return Err("usage: idle --connections N [--certificate FILE] ADDRESS PATH".into());
    };
    let target = Target::from_options(&options, addr)?;
    let request: Rc<[u8]> = client::request("GET", target.addr(), path, 0).into();
    let connections: usize = options.require("connections")?;
    let mut clients: Vec<Client> = (0..connections).map(|_| Client::new(&target)).collect();
    for line in std::io::stdin().lock().lines() {
        let failures = match line.map_err(|error| error.to_string())?.as_str() {
            "each" => each(&mut clients, &request).await,
            "burst" => burst(&mut clients, &request).await?,
            other => return Err(format!("{other:?} is neither each nor burst")),
        };
        println!("done {failures}");
    }
    Ok(())
}

async fn each(clients: &mut [Client], request: &[u8]) -> usize {
    let mut failures = 0;
    for client in clients {
        failures += usize::from(client.exchange(request).await != Ok(200));
    }
    failures
}

async fn burst(clients: &mut Vec<Client>, request: &Rc<[u8]>) -> Result<usize, String> {
    let tasks = clients.drain(..).map(|mut client| {
        let request = request.clone();
        tokio::task::spawn_local(async move { (client.exchange(&request).await, client) })
    });
    let mut failures = 0;
    for task in tasks.collect::<Vec<_>>() {
        let (outcome, client) = task.await.map_err(|error| error.to_string())?;
        failures += usize::from(outcome != Ok(200));
        clients.push(client);
    }
    Ok(failures)
}
