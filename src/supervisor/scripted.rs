//! Processes that do as they are told in a test, on a paused clock.

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use http::StatusCode;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::config::HealthCheck;
use crate::model::Exit;
use crate::supervisor::cgroup::Usage;
use crate::supervisor::health::Unwell;
use crate::supervisor::program::{Ends, ProcessId, Start, Streams};
use crate::supervisor::spawn::{Process, Spawn, SpawnError};

/// What one process will do, counted from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// When it accepts connections.
    pub(crate) listens: Option<Duration>,
    /// When it exits by itself, and how.
    pub(crate) exits: Option<(Duration, Exit)>,
    /// How long it takes to exit on SIGTERM; `None`: it ignores it.
    pub(crate) heeds_sigterm: Option<Duration>,
    /// Whether the start itself fails.
    pub(crate) fails: bool,
    /// Whether the life of the dyno meets a defect of ours.
    pub(crate) panics: bool,
    /// From when until when it is not well.
    pub(crate) unwell: Option<(Duration, Duration)>,
    /// Whether it says nothing at all then.
    pub(crate) hangs: bool,
    /// What it takes so long after its start.
    pub(crate) takes: Option<fn(u64) -> Usage>,
}

impl Script {
    pub(crate) fn listens(secs: u64) -> Self {
        let listens = Some(Duration::from_secs(secs));
        Self {
            listens,
            exits: None,
            heeds_sigterm: Some(Duration::ZERO),
            fails: false,
            panics: false,
            unwell: None,
            hangs: false,
            takes: None,
        }
    }

    pub(crate) fn never_listens() -> Self {
        Self { listens: None, ..Self::listens(0) }
    }

    pub(crate) fn fails() -> Self {
        Self { fails: true, ..Self::listens(0) }
    }

    pub(crate) fn panics() -> Self {
        Self { panics: true, ..Self::listens(0) }
    }

    pub(crate) fn exits(self, secs: u64, exit: Exit) -> Self {
        Self { exits: Some((Duration::from_secs(secs), exit)), ..self }
    }

    pub(crate) fn unwell(self, from: u64, until: u64) -> Self {
        Self { unwell: Some((Duration::from_secs(from), Duration::from_secs(until))), ..self }
    }

    pub(crate) fn hangs(self, from: u64, until: u64) -> Self {
        Self { hangs: true, ..self.unwell(from, until) }
    }

    /// By seconds after its start.
    pub(crate) fn takes(self, takes: fn(u64) -> Usage) -> Self {
        Self { takes: Some(takes), ..self }
    }

    pub(crate) fn ignores_sigterm(self) -> Self {
        Self { heeds_sigterm: None, ..self }
    }
}

/// Hands out the scripts in order; the last one again and again.
#[derive(Clone)]
pub(crate) struct Scripts {
    scripts: Arc<Mutex<VecDeque<Script>>>,
    pub(crate) starts: Arc<Mutex<Vec<Start>>>,
    living: Arc<AtomicUsize>,
    frozen: Arc<AtomicUsize>,
    /// The ports of the processes that live.
    pub(crate) ports: Arc<Mutex<BTreeSet<u16>>>,
    /// What the processes were signalled for their clients.
    pub(crate) signals: Arc<Mutex<Vec<i32>>>,
}

impl Scripts {
    pub(crate) fn new(scripts: &[Script]) -> Self {
        let scripts = Arc::new(Mutex::new(scripts.iter().copied().collect()));
        Self {
            scripts,
            starts: Arc::default(),
            living: Arc::default(),
            frozen: Arc::default(),
            ports: Arc::default(),
            signals: Arc::default(),
        }
    }

    /// How many processes live.
    pub(crate) fn living(&self) -> usize {
        self.living.load(Ordering::Relaxed)
    }

    /// How many of them are frozen.
    pub(crate) fn frozen(&self) -> usize {
        self.frozen.load(Ordering::Relaxed)
    }

    /// What the next processes will do, in place of what was planned.
    pub(crate) fn plan(&self, scripts: &[Script]) {
        *self.scripts.lock().unwrap() = scripts.iter().copied().collect();
    }
}

impl Scripts {
    /// A process that follows this script from now on.
    pub(crate) fn process(&self, script: Script, port: Option<u16>, streams: Streams) -> Scripted {
        self.living.fetch_add(1, Ordering::Relaxed);
        Scripted {
            script,
            born: Instant::now(),
            asked: watch::channel(None).0,
            port,
            ports: self.ports.clone(),
            came_up: Arc::default(),
            streams,
            signals: self.signals.clone(),
            living: self.living.clone(),
            frozen: self.frozen.clone(),
            is_frozen: AtomicBool::new(false),
        }
    }
}

impl Spawn for Scripts {
    type Process = Scripted;

    fn spawn(&self, start: &Start) -> Result<Scripted, SpawnError> {
        let mut scripts = self.scripts.lock().unwrap();
        let script = if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().copied() };
        let script = script.unwrap();
        if script.fails {
            return Err(SpawnError::NoDirectory(start.program.dir.clone()));
        }
        self.starts.lock().unwrap().push(start.clone());
        if let Some(port) = start.port {
            assert!(self.ports.lock().unwrap().insert(port), "port {port} is lent twice");
        }
        Ok(self.process(script, start.port, start.streams))
    }

    async fn cleared(&self) {}
}

/// A process that follows its script.
pub(crate) struct Scripted {
    script: Script,
    born: Instant,
    /// When a signal will end it, and how.
    asked: watch::Sender<Option<(Instant, Exit)>>,
    port: Option<u16>,
    ports: Arc<Mutex<BTreeSet<u16>>>,
    /// Whether it was told that it is up.
    pub(crate) came_up: Arc<AtomicBool>,
    streams: Streams,
    signals: Arc<Mutex<Vec<i32>>>,
    living: Arc<AtomicUsize>,
    frozen: Arc<AtomicUsize>,
    is_frozen: AtomicBool,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Ordering::Relaxed);
        if let Some(port) = self.port {
            self.ports.lock().unwrap().remove(&port);
        }
    }
}

impl Scripted {
    fn ask(&self, at: Instant, exit: Exit) {
        self.asked.send_if_modified(|asked| {
            let sooner = asked.is_none_or(|(before, _)| at < before);
            if sooner {
                *asked = Some((at, exit));
            }
            sooner
        });
    }
}

impl Process for Scripted {
    fn pid(&self) -> ProcessId {
        let pid = ProcessId::default();
        pid.set(1);
        pid
    }

    fn id(&self) -> &str {
        "0-1"
    }

    fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::LOCALHOST
    }

    fn is_counted(&self) -> bool {
        self.script.takes.is_some()
    }

    async fn usage(&self) -> Option<Usage> {
        self.script.takes.map(|takes| takes(self.born.elapsed().as_secs()))
    }

    async fn runnable(&self) -> u32 {
        1
    }

    async fn started(&self) {}

    async fn listening(&self) {
        assert!(!self.script.panics, "the defect of this script");
        match self.script.listens {
            Some(after) => time::sleep_until(self.born + after).await,
            None => pending().await,
        }
    }

    async fn well(&self, health: &HealthCheck) -> Result<(), Unwell> {
        assert!(!self.is_frozen.load(Ordering::Relaxed), "who is frozen answers nobody");
        match self.script.unwell {
            Some((from, until)) if (from..until).contains(&self.born.elapsed()) => {
                if self.script.hangs {
                    time::sleep(health.timeout).await;
                    return Err(Unwell::TimedOut);
                }
                Err(Unwell::Status(StatusCode::SERVICE_UNAVAILABLE))
            }
            _ => Ok(()),
        }
    }

    async fn ended(&self) {
        let _ = self.exited().await;
    }

    fn has_ended(&self) -> bool {
        pin!(self.exited()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn ended_at(&self) -> Option<Duration> {
        None
    }

    async fn exited(&self) -> Exit {
        let mut asked = self.asked.subscribe();
        loop {
            let by_itself = self.script.exits.map(|(after, exit)| (self.born + after, exit));
            let signalled = *asked.borrow_and_update();
            let end = [by_itself, signalled].into_iter().flatten().min_by_key(|(at, _)| *at);
            tokio::select! {
                exit = async {
                    match end {
                        Some((at, exit)) => { time::sleep_until(at).await; exit }
                        None => pending().await,
                    }
                } => return exit,
                _ = asked.changed() => {}
            }
        }
    }

    async fn group_gone(&self) {}

    async fn output_settled(&self) {}

    fn last_lines(&self) -> Vec<String> {
        vec!["the last line".to_owned()]
    }

    fn forget_lines(&self) {}

    fn freeze(&self) {
        assert!(!self.is_frozen.swap(true, Ordering::Relaxed), "frozen twice");
        self.frozen.fetch_add(1, Ordering::Relaxed);
    }

    fn thaw(&self) {
        if self.is_frozen.swap(false, Ordering::Relaxed) {
            self.frozen.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn ends(&self) -> Option<Ends> {
        if self.streams == Streams::Log {
            return None;
        }
        let (output, _) = std::io::pipe().unwrap();
        let (_, input) = std::io::pipe().unwrap();
        Some(Ends::Pipes { input: input.into(), output: output.into() })
    }

    fn came_up(&self) {
        self.came_up.store(true, Ordering::Relaxed);
    }

    fn signal(&self, signal: Signal) {
        self.signals.lock().unwrap().push(signal.as_raw());
        if let (Signal::HUP, Some(after)) = (signal, self.script.heeds_sigterm) {
            self.ask(Instant::now() + after, Exit::Signal(1));
        }
    }

    fn terminate(&self) {
        assert!(!self.is_frozen.load(Ordering::Relaxed), "who is frozen hears nothing");
        if let Some(after) = self.script.heeds_sigterm {
            self.ask(Instant::now() + after, Exit::Signal(15));
        }
    }

    fn kill(&self) {
        self.ask(Instant::now(), Exit::Signal(9));
    }
}
