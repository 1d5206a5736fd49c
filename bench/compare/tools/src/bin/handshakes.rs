//! Connections that come and go: each is made, asks once and ends.
//!
//! `handshakes --connections N --seconds S --certificate FILE [--resume yes] ADDRESS PATH`: N at a time. With
//! `--resume yes` a connection goes on with the session that the one before it left (RFC 8446 §2.2). Prints
//! how many handshakes were `full` and how many `resumed`, for a server may refuse to resume.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use compare_tools::client::{self, Connection, Loss};
use compare_tools::options::Options;
use compare_tools::tally::Tally;
use compare_tools::target::Target;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

/// After a loss, so that a proxy that is down is not asked as fast as a processor can.
const PAUSE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(drive()))
}

async fn drive() -> Result<(), String> {
    let options = Options::parse()?;
    let [addr, path] = options.rest.as_slice() else {
        return Err(
            "usage: handshakes --connections N --seconds S --certificate FILE [--resume yes] ADDRESS PATH"
                .into(),
        );
    };
    options.require::<String>("certificate")?;
    let target = Target::from_options(&options, addr)?;
    let resume = options.get("resume", "no".to_owned())? == "yes";
    let connections: usize = options.require("connections")?;
    let load = Rc::new(Load {
        request: client::last_request(target.addr(), path),
        end: Instant::now() + Duration::from_secs_f64(options.require("seconds")?),
        full: Cell::default(),
        resumed: Cell::default(),
        tally: RefCell::default(),
    });
    let tasks = (0..connections).map(|_| {
        // Each place has its own sessions, so that none finds the store emptied by another.
        let target = if resume { target.resuming() } else { target.clone() };
        tokio::task::spawn_local(load.clone().repeat(target))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|error| error.to_string())?;
    }
    println!("full {}", load.full.get());
    println!("resumed {}", load.resumed.get());
    load.tally.take().print();
    Ok(())
}

struct Load {
    request: Vec<u8>,
    end: Instant,
    full: Cell<u64>,
    resumed: Cell<u64>,
    tally: RefCell<Tally>,
}

impl Load {
    async fn repeat(self: Rc<Self>, target: Target) {
        while Instant::now() < self.end {
            let since = Instant::now();
            let outcome = self.once(&target).await;
            self.tally.borrow_mut().add(since.elapsed(), outcome);
            if outcome.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    async fn once(&self, target: &Target) -> Result<u16, Loss> {
        let mut connection = Connection::open(target).await?;
        let kind = if connection.is_resumed() { &self.resumed } else { &self.full };
        kind.set(kind.get() + 1);
        let answer = connection.exchange(&self.request).await?;
        connection.finish().await?;
        Ok(answer.status)
    }
}
