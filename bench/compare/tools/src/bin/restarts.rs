//! WebSockets to an echo while their dynos come and go: each comes back at once when it was closed for a restart
//! (1012), and every other ending is a loss.
//!
//! `restarts --connections N [--certificate FILE] ADDRESS PATH`, until SIGINT. Half of them send a message each
//! 20 ms, the others listen, and say one thing a second. Prints `messages`, `restarts`, `failures` and each kind of
//! failure, one a line.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use compare_tools::options::Options;
use compare_tools::socket::{Ending, Socket};
use compare_tools::target::Target;
use tokio::signal;
use tokio::task::LocalSet;
use tokio::time::sleep;

/// Between the messages of a socket that talks, and of one that listens.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];
/// RFC 6455 §7.4.1, IANA: service restart.
const RESTART: u16 = 1012;
/// After a loss, so that a proxy that is down is not asked as fast as a processor can.
const REST: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(drive()))
}

async fn drive() -> Result<(), String> {
    let options = Options::parse()?;
    let [addr, path] = options.rest.as_slice() else {
        return Err("usage: restarts --connections N [--certificate FILE] ADDRESS PATH".into());
    };
    let connections: usize = options.require("connections")?;
    let talk = Rc::new(Talk {
        target: Target::from_options(&options, addr)?,
        path: path.clone(),
        is_over: Cell::new(false),
        messages: Cell::new(0),
        endings: RefCell::default(),
    });
    let places = (0..connections)
        .map(|place| tokio::task::spawn_local(talk.clone().stay(PAUSES[place % PAUSES.len()])));
    let places: Vec<_> = places.collect();
    signal::ctrl_c().await.map_err(|error| error.to_string())?;
    talk.is_over.set(true);
    for place in places {
        place.await.map_err(|error| error.to_string())?;
    }
    talk.print();
    Ok(())
}

struct Talk {
    target: Target,
    path: String,
    is_over: Cell<bool>,
    messages: Cell<u64>,
    endings: RefCell<BTreeMap<Ending, u64>>,
}

impl Talk {
    /// Holds one place: a socket, and the next one when that has ended.
    async fn stay(self: Rc<Self>, pause: Duration) {
        while !self.is_over.get() {
            let Err(ending) = self.talk(pause).await else { return };
            *self.endings.borrow_mut().entry(ending).or_default() += 1;
            if ending != Ending::Closed(RESTART) {
                sleep(REST).await;
            }
        }
    }

    /// Returns well only when all is over.
    async fn talk(&self, pause: Duration) -> Result<(), Ending> {
        let mut socket = Socket::open(&self.target, &self.path).await?;
        while !self.is_over.get() {
            socket.echo().await?;
            self.messages.set(self.messages.get() + 1);
            socket.listen(pause).await?;
        }
        Ok(())
    }

    fn print(&self) {
        let endings = self.endings.borrow();
        let restarts = endings.get(&Ending::Closed(RESTART)).copied().unwrap_or(0);
        println!("messages {}", self.messages.get());
        println!("restarts {restarts}");
        println!("failures {}", endings.values().sum::<u64>() - restarts);
        for (ending, count) in endings.iter().filter(|(it, _)| **it != Ending::Closed(RESTART)) {
            println!("lost-socket-{} {count}", ending.name());
        }
    }
}
