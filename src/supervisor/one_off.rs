//! The life of a one-off dyno: one process that is started once, for a client that holds its streams, or for
//! nobody, into the log.
//!
//! Knows nothing of formations: it is never restarted, and what becomes of its app's dynos is nothing to it.

use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{self, Instant};

use crate::config::limits;
use crate::model::Exit;
use crate::supervisor::metrics;
use crate::supervisor::place::{Ended, Event, Orders, Place, State};
use crate::supervisor::program::{Ends, Streams};
use crate::supervisor::routes::Routes;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn, SpawnError};

/// What a client of an attached one-off dyno has in hand. To drop it is to leave: the process hears SIGHUP.
pub struct Session {
    /// The process' streams.
    pub ends: Ends,
    /// How the process ended, once nothing of it is left.
    pub exit: oneshot::Receiver<Exit>,
    /// Signals for every process of the dyno. Bounded: a person sends them.
    pub signals: mpsc::Sender<Signal>,
}

/// The place of a client that has not come yet.
pub(crate) type Visitor = oneshot::Sender<Session>;

/// One one-off dyno that has not begun to live.
pub(crate) struct OneOff<S: Spawn> {
    pub(crate) place: Place,
    pub(crate) spawn: S,
    pub(crate) routes: Arc<Routes>,
    pub(crate) streams: Streams,
    /// Where its client comes in; absent where nobody attaches.
    pub(crate) door: Option<oneshot::Receiver<Visitor>>,
    /// Who wants to know how it ended.
    pub(crate) ended: oneshot::Sender<Exit>,
}

/// A client that holds the streams.
struct Client {
    exit: oneshot::Sender<Exit>,
    signals: mpsc::Receiver<Signal>,
    /// How often it was told SIGHUP since the client has left, and when it will be told again.
    hangups: u32,
    next_hangup: Option<Instant>,
}

impl<S: Spawn> OneOff<S> {
    /// Lives until its process is gone, or was told to go.
    pub(crate) async fn live(mut self) {
        let _at_the_end = Ended(self.place.clone());
        self.place.tell(Event::Entered(State::Starting));
        let visitor = match self.door.take() {
            None => None,
            Some(door) => match self.await_client(door).await {
                Some(visitor) => Some(visitor),
                None => return self.place.say("State changed from starting to complete"),
            },
        };
        let running = match self.start() {
            Ok(running) => running,
            Err(error) => {
                self.place.say(format_args!("Failed to start: {error}"));
                return self.place.say("State changed from starting to complete");
            }
        };
        self.tell_up(&running);
        self.place.say("State changed from starting to up");
        let client = match visitor {
            Some(visitor) => attach(&running, visitor).await,
            None => None,
        };
        self.up(running, client).await;
    }

    /// As [`live`](Self::live), from where an earlier daemon has left it. It has no client.
    pub(crate) async fn go_on(self, running: Running<S::Process>) {
        let _at_the_end = Ended(self.place.clone());
        self.tell_up(&running);
        self.up(running, None).await;
    }

    fn tell_up(&self, running: &Running<S::Process>) {
        self.place.tell(Event::Started { pid: running.process.pid(), record: None });
        self.place.tell(Event::Entered(State::Up));
    }

    /// Returns the client's place once it is there. `None`: it did not come, or the dyno was told to stop.
    async fn await_client(&self, door: oneshot::Receiver<Visitor>) -> Option<Visitor> {
        self.place.say("Awaiting client");
        tokio::select! {
            biased;
            () = told_to_stop(self.place.orders.clone()) => None,
            visitor = time::timeout(limits::ATTACH_WAIT, door) => match visitor {
                Ok(visitor) => visitor.ok(),
                Err(_) => {
                    metrics::error(&self.place.app, "R13");
                    self.place.say("Error R13 (Attach error) -> Failed to attach to process");
                    None
                }
            },
        }
    }

    fn start(&self) -> Result<Running<S::Process>, SpawnError> {
        let program = self.place.orders.borrow().program.clone();
        let routes = self.routes.clone();
        Running::start(&self.spawn, &self.place, program, None, self.streams, routes)
    }

    async fn up(self, running: Running<S::Process>, mut client: Option<Client>) {
        let exit = loop {
            tokio::select! {
                biased;
                exit = running.process.exited() => {
                    running.bury(&self.place, exit).await;
                    break exit;
                }
                () = told_to_stop(self.place.orders.clone()) => break running.terminate(&self.place).await,
                flow = heed(&mut client, &*running.process, &self.place) => {
                    if flow.is_break() {
                        break running.terminate(&self.place).await;
                    }
                }
            }
        };
        self.place.say("State changed from up to complete");
        // Either may have lost interest.
        let _ = self.ended.send(exit);
        if let Some(client) = client {
            let _ = client.exit.send(exit);
        }
    }
}

/// Gives the streams to the client. It may have left meanwhile, which then is heard as such.
async fn attach<P: Process>(running: &Running<P>, visitor: Visitor) -> Option<Client> {
    let ends = running.process.ends().await?;
    let (told, exit) = oneshot::channel();
    let (signals, heard) = mpsc::channel(limits::SIGNALS_WAITING);
    let _ = visitor.send(Session { ends, exit, signals });
    Some(Client { exit: told, signals: heard, hangups: 0, next_hangup: None })
}

/// Does what the client asks for, and hangs up when it has left: at once, and some times more. Break: the process
/// does not respond. Dropped before it returns, it has done nothing that it would do again.
async fn heed(
    client: &mut Option<Client>,
    process: &impl Process,
    place: &Place,
) -> ControlFlow<()> {
    let Some(client) = client else { return std::future::pending().await };
    if let Some(next) = client.next_hangup {
        time::sleep_until(next).await;
        if client.hangups == limits::HANGUPS {
            metrics::error(&place.app, "R16");
            place.say("Error R16 (Detached) -> An attached process is not responding to SIGHUP after its external connection was closed.");
            return ControlFlow::Break(());
        }
    } else if let Some(signal) = client.signals.recv().await {
        process.signal(signal);
        return ControlFlow::Continue(());
    }
    client.hangups += 1;
    client.next_hangup = Some(Instant::now() + limits::HANGUP_EVERY);
    process.signal(Signal::HUP);
    ControlFlow::Continue(())
}

/// Returns once the orders say so, or nobody is left to give them.
async fn told_to_stop(mut orders: watch::Receiver<Orders>) {
    // An error is that nobody is left.
    let _ = orders.wait_for(|orders| orders.stop).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::model::ProcessType;
    use crate::supervisor::run::{Begun, RunError, RunOrder};
    use crate::supervisor::scripted::Script;
    use crate::supervisor::tests::{Formation, app_name, managed, passes};

    fn order(command: &str, streams: Streams) -> RunOrder {
        RunOrder {
            app: app_name("shop"),
            process_type: ProcessType::parse("run").unwrap(),
            command: command.into(),
            env: BTreeMap::from([("ONE".into(), "1".into())]),
            size: None,
            streams,
        }
    }

    /// The app shop with a worker that does as the first script says, and what one-offs do.
    async fn shop(one_off: Script) -> Formation {
        let formation =
            Formation::start(&[Script::listens(0)], &[("shop", managed(&[("worker", 1)]))]);
        passes(1).await;
        formation.scripts.plan(&[one_off]);
        formation
    }

    async fn begin(formation: &Formation, streams: Streams) -> Begun {
        formation.supervisor.run(order("worker --once", streams)).await.unwrap()
    }

    fn states(formation: &Formation) -> Vec<String> {
        let of_one_off = |state: &String| !state.contains(" worker.1 ");
        formation.states().into_iter().filter(of_one_off).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_once_and_is_not_there_any_more() {
        let formation = shop(Script::listens(0).exits(5, Exit::Status(3))).await;
        let begun = begin(&formation, Streams::Log).await;
        passes(1).await;
        assert_eq!(states(&formation), [format!("shop {} up", begun.dyno)]);
        assert_eq!(begun.command, "run worker --once");
        let start = formation.scripts.starts.lock().unwrap().last().unwrap().clone();
        assert_eq!((start.program.command.as_str(), start.port), ("run worker --once", None));
        assert_eq!(start.program.config_vars["ONE"], "1");
        assert_eq!(begun.ended.await, Ok(Exit::Status(3)));
        passes(1000).await;
        assert_eq!(states(&formation), [""; 0]);
        assert_eq!(formation.scripts.starts.lock().unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_stopped_by_its_name_and_with_the_daemon() {
        let formation = shop(Script::listens(0)).await;
        let [one, other] =
            [begin(&formation, Streams::Log).await, begin(&formation, Streams::Log).await];
        let shop = app_name("shop");
        assert!(formation.supervisor.stop_dyno(&shop, &one.dyno.to_string()).await);
        assert_eq!(one.ended.await, Ok(Exit::Signal(15)));
        assert!(!formation.supervisor.stop_dyno(&shop, &one.dyno.to_string()).await);
        formation.supervisor.stop().await;
        assert_eq!(other.ended.await, Ok(Exit::Signal(15)));
        let refused = formation.supervisor.run(order("true", Streams::Log)).await;
        assert_eq!(refused.unwrap_err(), RunError::Stopping);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_run_is_refused() {
        let formation = shop(Script::listens(0)).await;
        let refused = formation.supervisor.run(order(" ", Streams::Log)).await;
        assert_eq!(refused.unwrap_err(), RunError::NoCommand);
        let app = app_name("blog");
        let order = RunOrder { app: app.clone(), ..order("true", Streams::Log) };
        let refused = formation.supervisor.run(order).await;
        assert_eq!(refused.unwrap_err(), RunError::NotManaged(app));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attached_one_waits_for_its_client_but_not_for_ever() {
        let formation = shop(Script::listens(0).exits(5, Exit::Status(0))).await;
        let begun = begin(&formation, Streams::Pipes).await;
        passes(59).await;
        assert_eq!(states(&formation), [format!("shop {} starting", begun.dyno)]);
        assert_eq!(formation.scripts.starts.lock().unwrap().len(), 1, "it has started nothing");
        passes(1).await;
        assert!(begun.ended.await.is_err());
        assert_eq!(states(&formation), [""; 0]);

        let begun = begin(&formation, Streams::Pipes).await;
        let (shop, dyno) = (app_name("shop"), begun.dyno.to_string());
        let session = formation.supervisor.attach(&shop, &dyno).await.unwrap();
        assert!(formation.supervisor.attach(&shop, &dyno).await.is_none(), "it has its client");
        assert_eq!(session.exit.await, Ok(Exit::Status(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn signals_of_the_client_reach_the_process_and_its_leaving_is_one() {
        let formation = shop(Script::listens(0)).await;
        let begun = begin(&formation, Streams::Pipes).await;
        let (shop, dyno) = (app_name("shop"), begun.dyno.to_string());
        let session = formation.supervisor.attach(&shop, &dyno).await.unwrap();
        session.signals.send(Signal::INT).await.unwrap();
        passes(1).await;
        drop(session);
        assert_eq!(begun.ended.await, Ok(Exit::Signal(1)));
        assert_eq!(*formation.scripts.signals.lock().unwrap(), [2, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_hear_sighup_is_stopped() {
        let formation = shop(Script::listens(0).ignores_sigterm()).await;
        let begun = begin(&formation, Streams::Pipes).await;
        let (shop, dyno) = (app_name("shop"), begun.dyno.to_string());
        let session = formation.supervisor.attach(&shop, &dyno).await.unwrap();
        let began = Instant::now();
        drop(session);
        assert_eq!(begun.ended.await, Ok(Exit::Signal(9)));
        assert_eq!(*formation.scripts.signals.lock().unwrap(), [1, 1, 1]);
        // Three times five seconds, and the time from SIGTERM to SIGKILL.
        assert_eq!(began.elapsed(), Duration::from_secs(45));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_release_leaves_it_alone_and_the_apps_end_does_not() {
        let formation = shop(Script::listens(0)).await;
        let begun = begin(&formation, Streams::Log).await;
        let mut changed = managed(&[("worker", 1)]);
        if let crate::config::AppSource::Managed(app) = &mut changed {
            app.commands.insert(ProcessType::parse("worker").unwrap(), "other".into());
        }
        formation.apply(&[("shop", changed)]).await;
        passes(100).await;
        assert_eq!(states(&formation), [format!("shop {} up", begun.dyno)]);
        formation.apply(&[]).await;
        assert_eq!(begun.ended.await, Ok(Exit::Signal(15)));
    }
}
