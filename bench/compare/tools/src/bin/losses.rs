//! Counts what goes wrong: each connection sends one request after the other and never repeats one.
//!
//! `losses --connections N --seconds S [--method M] [--body BYTES] [--certificate FILE]
//! ADDRESS PATH`. The first requests go out together; SIGINT ends them before their time. With `--numbered yes` each
//! request is told apart by `?n=`, for the upstream's journal.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use compare_tools::client::{self, Client};
use compare_tools::options::Options;
use compare_tools::tally::Tally;
use compare_tools::target::Target;
use tokio::signal;
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
            "usage: losses --connections N --seconds S [--method M] [--body BYTES] [--certificate FILE] ADDRESS PATH"
                .into(),
        );
    };
    let connections: u32 = options.require("connections")?;
    let load = Rc::new(Load {
        target: Target::from_options(&options, addr)?,
        method: options.get("method", "GET".to_owned())?,
        path: path.clone(),
        body: options.get("body", 0)?,
        numbered: options.get("numbered", "no".to_owned())? == "yes",
        end: Cell::new(Instant::now() + Duration::from_secs_f64(options.require("seconds")?)),
        next: Cell::new(0),
        tally: RefCell::default(),
    });
    let tasks = (0..connections).map(|_| tokio::task::spawn_local(load.clone().repeat()));
    let tasks: Vec<_> = tasks.collect();
    let interrupted = load.clone();
    tokio::task::spawn_local(async move {
        if signal::ctrl_c().await.is_ok() {
            interrupted.end.set(Instant::now());
        }
    });
    for task in tasks {
        task.await.map_err(|error| error.to_string())?;
    }
    load.tally.take().print();
    Ok(())
}

struct Load {
    target: Target,
    method: String,
    path: String,
    body: usize,
    numbered: bool,
    end: Cell<Instant>,
    next: Cell<u64>,
    tally: RefCell<Tally>,
}

impl Load {
    async fn repeat(self: Rc<Self>) {
        let plain = client::request(&self.method, self.target.addr(), &self.path, self.body);
        let mut client = Client::new(&self.target);
        while Instant::now() < self.end.get() {
            let numbered = self.numbered.then(|| self.numbered_request());
            let since = Instant::now();
            let outcome = client.exchange(numbered.as_deref().unwrap_or(&plain)).await;
            self.tally.borrow_mut().add(since.elapsed(), outcome);
            if outcome.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    fn numbered_request(&self) -> Vec<u8> {
        let number = self.next.replace(self.next.get() + 1);
        client::request(
            &self.method,
            self.target.addr(),
            &format!("{}?n={number}", self.path),
            self.body,
        )
    }
}
