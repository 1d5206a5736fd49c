//! A worker's thread: starts it, reads its mailbox, keeps its clock.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use tokio::runtime::{self, LocalOptions};
use tokio::sync::mpsc;
use tokio::task;
use tokio::time::{self, MissedTickBehavior};

use crate::config::limits;
use crate::router::client::Client;
use crate::router::client_stream::ClientStream;
use crate::router::connection::Live;
use crate::router::http1::Http1;
use crate::router::intake::Intake;
use crate::router::listener::{Listener, Peer};
use crate::router::mailbox::{Mailbox, Message};
use crate::router::stream::Stream;
use crate::router::worker::{Start, Worker};

/// Starts a worker's thread, and returns when it is ready.
pub(crate) fn start(name: String, start: Start) -> io::Result<(Arc<Mailbox>, JoinHandle<()>)> {
    let (mailbox, inbox) = Mailbox::new();
    let own = mailbox.clone();
    let (ready, started) = sync_channel(1);
    let thread = Builder::new().name(name).spawn(move || run(start, own, inbox, &ready))?;
    // The runtime belongs to its thread, so it is made there.
    started.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    Ok((mailbox, thread))
}

fn run(
    start: Start,
    mailbox: Arc<Mailbox>,
    inbox: mpsc::UnboundedReceiver<Message>,
    ready: &SyncSender<io::Result<()>>,
) {
    let mut builder = runtime::Builder::new_current_thread();
    let intake = Arc::<Intake>::default();
    let called = intake.clone();
    builder.on_thread_park(move || called.call());
    let runtime = match builder.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let worker = Rc::new(Worker::new(start, mailbox, intake));
        drop(ready.send(Ok(())));
        work(&worker, inbox).await;
        worker.access_log.borrow_mut().flush();
    });
}

/// Reads the mailbox and keeps the clock until told to stop and the last connection is gone.
async fn work(worker: &Rc<Worker>, mut inbox: mpsc::UnboundedReceiver<Message>) {
    let mut ticks = time::interval(limits::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                worker.tick();
                if worker.is_stopping() && worker.connections() == 0 && worker.lingers.len() == 0 {
                    return;
                }
            }
            message = inbox.recv() => match message {
                Some(message) => receive(worker, message),
                None => return,
            },
        }
    }
}

fn receive(worker: &Rc<Worker>, message: Message) {
    match message {
        Message::Connection { socket, peer, listener } => welcome(worker, socket, peer, listener),
        Message::Notice(notice) => worker.heed(notice),
        Message::Drain(bound) => worker.drain(bound),
        Message::Stop => worker.stop(),
        Message::Ping => worker.pulse(),
        // Whoever asked may have gone.
        Message::Report(answer) => drop(answer.send(worker.report())),
    }
}

fn welcome(worker: &Rc<Worker>, socket: OwnedFd, peer: Peer, listener: Arc<Listener>) {
    match Stream::accepted(socket, listener.is_tcp()) {
        Ok(stream) => {
            let transport = Http1 { stream: ClientStream::Plain(stream), input: Vec::new() };
            let client = Client::new(transport, peer, listener, worker.clone());
            // Not awaited: the worker's end waits for the count of connections instead, which costs nothing
            // per connection.
            drop(task::spawn_local(Live::new(client)));
        }
        Err(error) => {
            tracing::warn!(%error, "failed to register a connection");
            worker.connection_closed(&listener);
        }
    }
}
