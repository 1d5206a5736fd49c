//! An authority that does as it is told in a test, on a paused clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use tokio::time::{Instant, sleep};

use crate::certs::acme::authority::{Authority, Failure, Issued, Job, OrderError};
use crate::certs::acme::wanted::Proof;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

thread_local! {
    /// When the test began, by both clocks.
    static START: (Instant, SystemTime) = (Instant::now(), SystemTime::now());
}

/// The wall clock of a test: it goes as tokio's does.
pub(crate) fn wall() -> SystemTime {
    START.with(|(instant, time)| *time + instant.elapsed())
}

/// A certificate that ends in so many days; one that has ended, ended that long ago.
pub(crate) fn issue(name: &str, days: i32) -> Issued {
    let lifetime = DAY * days.unsigned_abs();
    let now = SystemTime::now();
    match days < 0 {
        true => issue_from(name, now - 2 * lifetime, lifetime),
        false => issue_from(name, now, lifetime),
    }
}

/// A certificate signed by itself.
pub(crate) fn issue_from(name: &str, not_before: SystemTime, lifetime: Duration) -> Issued {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (not_before.into(), (not_before + lifetime).into());
    let key = KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    Issued { chain, key: key.serialize_pem() }
}

/// What an order comes to.
#[derive(Clone, Copy)]
pub(crate) enum Script {
    /// A certificate that holds for so many days, after so long; the name is verified at once.
    Issues(u32, Duration),
    /// A failure, with what the server asks for.
    Fails(&'static str, Option<Duration>),
    /// A certificate for another name.
    IssuesForOthers,
    /// Nothing, and not even an end when it is told to stop, for so long; then the name is verified, and it fails.
    Hangs(Duration),
    /// A defect.
    Panics,
}

/// Stands for a server. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    scripts: BTreeMap<String, VecDeque<Script>>,
    begun: Vec<Begun>,
    running: BTreeSet<Box<str>>,
    at_once: usize,
}

/// An order as it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) after: Duration,
    pub(crate) name: String,
    pub(crate) proof: Proof,
}

impl Scripted {
    /// What the next orders of a name come to; the last stays. A name without a script gets a certificate of
    /// 90 days after a second.
    pub(crate) fn plan(&self, name: &str, scripts: &[Script]) {
        self.0.lock().unwrap().scripts.insert(name.into(), scripts.iter().copied().collect());
    }

    /// The orders so far.
    pub(crate) fn begun(&self) -> Vec<Begun> {
        self.0.lock().unwrap().begun.clone()
    }

    /// Orders of this name that began, each by its time since the first order of all.
    pub(crate) fn times(&self, name: &str) -> Vec<Duration> {
        let begun = self.begun();
        let first = begun[0].after;
        let of_name = begun.iter().filter(|it| it.name == name);
        of_name.map(|it| it.after - first).collect()
    }

    /// The most orders that ran at one time.
    pub(crate) fn at_once(&self) -> usize {
        self.0.lock().unwrap().at_once
    }

    /// Orders that run.
    pub(crate) fn running(&self) -> usize {
        self.0.lock().unwrap().running.len()
    }

    fn begin(&self, name: &str, proof: Proof) -> Script {
        let mut state = self.0.lock().unwrap();
        let after = START.with(|(start, _)| start.elapsed());
        state.begun.push(Begun { after, name: name.into(), proof });
        assert!(state.running.insert(name.into()), "{name} is ordered twice at one time");
        state.at_once = state.at_once.max(state.running.len());
        match state.scripts.get_mut(name) {
            None => Script::Issues(90, Duration::from_secs(1)),
            Some(scripts) if scripts.len() > 1 => scripts.pop_front().unwrap(),
            Some(scripts) => scripts[0],
        }
    }
}

/// Notes the end of an order, however it comes.
struct Running(Scripted, Box<str>);

impl Drop for Running {
    fn drop(&mut self) {
        let state = self.0.0.lock();
        // A test that failed meanwhile has said so.
        let Ok(mut state) = state else { return };
        state.running.remove(&self.1);
    }
}

impl Authority for Scripted {
    async fn order(&self, job: Job) -> Result<Issued, OrderError> {
        let script = self.begin(&job.name, job.proofs[0]);
        let _running = Running(self.clone(), job.name.clone());
        match script {
            Script::Issues(days, after) => {
                job.steps.verified(&job.name).await?;
                job.steps.wait_for(sleep(after)).await?;
                Ok(issue_from(&job.name, wall(), DAY * days))
            }
            Script::Fails(reason, retry_after) => {
                Err(Failure { retry_after, ..Failure::new(reason) }.into())
            }
            Script::IssuesForOthers => Ok(issue_from("others.example", wall(), DAY)),
            Script::Hangs(duration) => {
                sleep(duration).await;
                job.steps.verified(&job.name).await?;
                Err(Failure::new("it hung").into())
            }
            Script::Panics => panic!("the test wants it so"),
        }
    }
}
