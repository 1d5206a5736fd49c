//! The loop that owns which names have certificates: it orders what is missing, renews what ends, and waits
//! after what failed.
//!
//! Invariant: never two orders of one name, never more than [`limits::ACME_ORDERS`] at one time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::certs::Certs;
use crate::certs::acme::authority::{Authority, Failure, Job, OrderError, Steps};
use crate::certs::acme::back_off::BackOff;
use crate::certs::acme::board::{AcmeState, Board};
use crate::certs::acme::obtained::{Obtained, ObtainedError};
use crate::certs::acme::renewal::Validity;
use crate::certs::acme::store::Store;
use crate::certs::acme::wanted::{Proof, Wanted};
use crate::config::limits;
use crate::shutdown::Shutdown;

/// What the manager needs of the world.
pub(crate) struct Means<A> {
    pub(crate) certs: Arc<Certs>,
    pub(crate) state_dir: PathBuf,
    pub(crate) board: Board,
    pub(crate) authority: Authorities<A>,
    /// The wall clock, by which certificates end. All waiting is by tokio's.
    pub(crate) now: fn() -> SystemTime,
    /// From 0 to 1.
    pub(crate) random: fn() -> f64,
}

/// Who is asked for what is wanted.
pub(crate) type Authorities<A> = Box<dyn Fn(&Wanted, &Store) -> A + Send + Sync>;

/// The loop's own state.
pub(crate) struct Manager<A> {
    means: Means<A>,
    session: Option<Session<A>>,
    names: BTreeMap<Box<str>, Managed>,
    /// Orders belong to the loop: they end with it.
    orders: JoinSet<Result<Obtained, OrderError>>,
    running: BTreeMap<Box<str>, Running>,
    verified: mpsc::Sender<Box<str>>,
    heard: mpsc::Receiver<Box<str>>,
}

/// What holds until something else is wanted.
struct Session<A> {
    wanted: Arc<Wanted>,
    store: Store,
    authority: Arc<A>,
}

/// A name that is wanted.
struct Managed {
    due: Due,
    back_off: BackOff,
    proof: Proof,
    /// Of the certificate that is served.
    validity: Option<Validity>,
}

/// When the next order begins.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// After a wait.
    At(Instant),
    /// Before the certificate ends.
    On(SystemTime),
}

/// An order under way.
struct Running {
    task: task::Id,
    stopped: CancellationToken,
}

impl<A: Authority> Manager<A> {
    /// Does nothing yet.
    pub(crate) fn new(means: Means<A>) -> Self {
        // Each order says at most one thing before it ends.
        let (verified, heard) = mpsc::channel(limits::ACME_ORDERS);
        Self {
            means,
            session: None,
            names: BTreeMap::new(),
            orders: JoinSet::new(),
            running: BTreeMap::new(),
            verified,
            heard,
        }
    }

    /// Runs until the shutdown begins. Orders are broken off then: the next start orders again.
    pub(crate) async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
        shutdown: Shutdown,
    ) {
        loop {
            self.begin_what_is_due();
            let next = self.next_look();
            // Each of these may be dropped and asked again without loss. What an order has said is heard
            // before that it has ended.
            tokio::select! {
                biased;
                () = shutdown.begun() => return self.orders.shutdown().await,
                Ok(()) = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    self.apply(wanted).await;
                }
                Some(name) = self.heard.recv() => self.verified(&name),
                Some(ended) = self.orders.join_next_with_id(), if !self.orders.is_empty() => {
                    self.ended(ended);
                }
                () = sleep_until(next) => {}
            }
        }
    }

    // ---- what is wanted ----------------------------------------------------------------------------------

    /// Takes over what the configuration wants now. Certificates that are kept on the disk are served when
    /// this returns.
    pub(crate) async fn apply(&mut self, wanted: Option<Arc<Wanted>>) {
        let before = self.session.take();
        let Some(wanted) = wanted else {
            self.keep_names(|_| false);
            return;
        };
        let same = before.filter(|it| it.wanted.is_of_same_server(&wanted));
        let session = match same {
            Some(session) => {
                self.keep_names(|name| wanted.names.contains(name));
                Session { wanted, ..session }
            }
            None => {
                // Whatever failed, failed elsewhere; what is served stays until there is something better.
                self.stop_orders(|_| true);
                self.names.clear();
                self.forget_unless(|name| wanted.names.contains(name));
                let store = Store::of(&self.means.state_dir, &wanted.config.directory);
                let authority = Arc::new((self.means.authority)(&wanted, &store));
                Session { wanted, store, authority }
            }
        };
        self.reschedule(&session.wanted);
        self.add_names(&session).await;
        self.session = Some(session);
    }

    fn keep_names(&mut self, wanted: impl Fn(&str) -> bool) {
        self.stop_orders(|name| !wanted(name));
        self.names.retain(|name, _| wanted(name));
        self.forget_unless(wanted);
    }

    /// Serves none but these any more; their files stay.
    fn forget_unless(&self, wanted: impl Fn(&str) -> bool) {
        self.means.board.keep(&wanted);
        self.means.certs.keep_obtained(wanted);
    }

    /// They end after the step that they are at.
    fn stop_orders(&self, unwanted: impl Fn(&str) -> bool) {
        for (_, running) in self.running.iter().filter(|(name, _)| unwanted(name)) {
            running.stopped.cancel();
        }
    }

    /// `renew_before` may be another one.
    fn reschedule(&mut self, wanted: &Wanted) {
        for managed in self.names.values_mut() {
            if let (Due::On(_), Some(validity)) = (managed.due, managed.validity) {
                managed.due = self.means.renewal(wanted, validity);
            }
        }
    }

    async fn add_names(&mut self, session: &Session<A>) {
        let names = session.wanted.names.iter();
        let added = names.filter(|name| !self.names.contains_key(*name)).cloned();
        let added = added.collect::<Vec<_>>();
        let (store, names, now) = (session.store.clone(), added.clone(), (self.means.now)());
        let read = move || names.iter().map(|name| store.certificate(name, now)).collect();
        let kept: Vec<Option<Obtained>> = spawn_blocking(read).await.unwrap_or_else(|panic| {
            tracing::error!("failed to read the certificates that are kept: {panic}");
            vec![None; added.len()]
        });
        for (name, kept) in added.into_iter().zip(kept) {
            let validity = kept.as_ref().map(|it| it.validity);
            let due = match validity {
                Some(validity) => self.means.renewal(&session.wanted, validity),
                None => Due::At(Instant::now()),
            };
            if let Some(kept) = kept {
                self.means.certs.install(&kept.certificate);
            }
            self.means.board.list(&name, validity.map(|it| it.not_after));
            let proof = session.wanted.proofs[0];
            self.names.insert(name, Managed { due, back_off: BackOff::default(), proof, validity });
        }
    }

    // ---- orders ------------------------------------------------------------------------------------------

    /// Those whose certificate ends first go first, and before those that have none to lose.
    fn begin_what_is_due(&mut self) {
        let Some(session) = self.session.as_ref() else { return };
        let (now, on) = (Instant::now(), (self.means.now)());
        while self.running.len() < limits::ACME_ORDERS {
            let due = self.names.iter().filter(|(name, managed)| {
                managed.due.has_come(now, on) && !self.running.contains_key(*name)
            });
            let urgency = |managed: &Managed| managed.validity.map(|it| it.not_after);
            let first =
                due.min_by_key(|(_, managed)| (urgency(managed).is_none(), urgency(managed)));
            let Some((name, managed)) = first else { return };
            let (name, stopped) = (name.clone(), CancellationToken::new());
            let steps = Steps { stopped: stopped.clone(), verified: self.verified.clone() };
            let proofs = session.wanted.preferring(managed.proof);
            let job = Job { name: name.clone(), proofs, steps };
            let (authority, store) = (session.authority.clone(), session.store.clone());
            let wall = self.means.now;
            let task = match managed.validity {
                Some(_) => self.orders.spawn(order(authority, store, job, wall)),
                None => self.orders.spawn(find_or_order(authority, store, job, wall)),
            };
            self.running.insert(name, Running { task: task.id(), stopped });
        }
    }

    /// When something may be due. While there is no room for another order, an end comes first.
    fn next_look(&self) -> Instant {
        let (now, on) = (Instant::now(), (self.means.now)());
        let latest = now + limits::ACME_LOOK;
        if self.running.len() >= limits::ACME_ORDERS || self.session.is_none() {
            return latest;
        }
        let waiting = self.names.iter().filter(|(name, _)| !self.running.contains_key(*name));
        let next = waiting.map(|(_, managed)| managed.due.instant(now, on)).min();
        next.map_or(latest, |next| next.min(latest))
    }

    fn verified(&self, name: &str) {
        let running = self.running.get(name).filter(|it| !it.stopped.is_cancelled());
        let managed = self.names.get(name).filter(|it| it.validity.is_none());
        if running.is_some() && managed.is_some() {
            self.means.board.enter(name, AcmeState::Verified);
        }
    }

    fn ended(&mut self, ended: Result<(task::Id, Result<Obtained, OrderError>), JoinError>) {
        let (task, outcome) = match ended {
            Ok((task, outcome)) => (task, outcome),
            Err(panic) => (panic.id(), Err(Failure::new(&panic).into())),
        };
        let name = self.running.iter().find(|(_, running)| running.task == task);
        let name = name.expect("every order has its place until it ends").0.clone();
        let running = self.running.remove(&name).expect("it was just found");
        let (Some(session), Some(managed)) = (&self.session, self.names.get_mut(&name)) else {
            return;
        };
        if running.stopped.is_cancelled() {
            // Whatever came of it, it was for an earlier wish.
            return;
        }
        match outcome {
            Ok(obtained) => {
                self.means.certs.install(&obtained.certificate);
                managed.validity = Some(obtained.validity);
                managed.back_off.reset();
                managed.due = self.means.renewal(&session.wanted, obtained.validity);
                self.means.board.list(&name, Some(obtained.validity.not_after));
            }
            Err(OrderError::Failed(Failure { reason, retry_after })) => {
                let wait = managed.back_off.after_failure(retry_after, (self.means.random)());
                managed.due = Due::At(Instant::now() + wait);
                managed.proof = session.wanted.other(managed.proof);
                self.means.board.enter(&name, AcmeState::Failing { reason });
            }
            // Only those are stopped that are not wanted any more.
            Err(OrderError::Stopped) => {}
        }
    }
}

impl<A> Means<A> {
    fn renewal(&self, wanted: &Wanted, validity: Validity) -> Due {
        let renew_before = wanted.config.renew_before;
        Due::On(validity.renewal(renew_before, (self.now)(), (self.random)()))
    }
}

impl Due {
    fn has_come(self, now: Instant, on: SystemTime) -> bool {
        match self {
            Self::At(instant) => instant <= now,
            Self::On(time) => time <= on,
        }
    }

    fn instant(self, now: Instant, on: SystemTime) -> Instant {
        match self {
            Self::At(instant) => instant,
            // What is too far to be told is looked at before it comes.
            Self::On(time) => {
                let left = time.duration_since(on).unwrap_or_default();
                now.checked_add(left).unwrap_or(now + limits::ACME_LOOK)
            }
        }
    }
}

/// For a name that has no certificate. There may be one on the disk all the same: from an order that was told
/// to stop too late, or one that was not valid yet by a clock that was slow when we started.
async fn find_or_order<A: Authority>(
    authority: Arc<A>,
    store: Store,
    job: Job,
    now: fn() -> SystemTime,
) -> Result<Obtained, OrderError> {
    let (found, name, at) = (store.clone(), job.name.clone(), now());
    match spawn_blocking(move || found.certificate(&name, at)).await.map_err(Failure::new)? {
        Some(obtained) => Ok(obtained),
        None => order(authority, store, job, now).await,
    }
}

/// From the order to the certificate on the disk.
async fn order<A: Authority>(
    authority: Arc<A>,
    store: Store,
    job: Job,
    now: fn() -> SystemTime,
) -> Result<Obtained, OrderError> {
    let name = job.name.clone();
    let issued = timeout(limits::ACME_ORDER, authority.order(job)).await.map_err(|_| {
        Failure::new(format!("the order took longer than {:?}", limits::ACME_ORDER))
    })??;
    let now = now();
    let keep = move || {
        let obtained = Obtained::judge(&name, &issued.chain, &issued.key, now);
        let obtained = obtained.map_err(|error| {
            // The key is ours, so what does not fit is the certificate.
            let what = match &error {
                ObtainedError::Flaw(flaw) if flaw.is_of_key() => "is for another key".to_owned(),
                error => error.to_string(),
            };
            Failure::new(format!("the certificate that was issued {what}"))
        })?;
        if let Err(error) = store.save_certificate(&name, &issued) {
            // It is served all the same; the next start orders it again.
            tracing::error!("failed to keep the certificate of {name}: {error}");
        }
        Ok(obtained)
    };
    spawn_blocking(keep).await.map_err(Failure::new)?
}
