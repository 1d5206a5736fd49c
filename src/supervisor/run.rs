//! What one-off dynos are asked for, and which live. Plain data: `manager` begins and ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::config::limits;
use crate::model::{AppName, DynoName, Exit, ProcessType, Size, SizeName};
use crate::supervisor::one_off::Visitor;
use crate::supervisor::place::Orders;
use crate::supervisor::program::Streams;

/// A one-off dyno that somebody wants.
#[derive(Clone, Debug)]
pub struct RunOrder {
    /// Whose program it runs, with whose config vars.
    pub app: AppName,
    /// Before the dot of its name: `run`, `scheduler`.
    pub process_type: ProcessType,
    /// What it runs. A process type of the Procfile as the first word stands for its command.
    pub command: String,
    /// Variables over the app's own, for this one alone.
    pub env: BTreeMap<String, String>,
    /// Its size, if not that of the app.
    pub size: Option<Arc<Size>>,
    /// Where its streams lead. Where a client has them, nothing starts before it has come.
    pub streams: Streams,
}

/// A one-off dyno that has begun to live.
#[derive(Debug)]
pub struct Begun {
    /// `run.4711`
    pub dyno: DynoName,
    /// What its process type stood for, written out.
    pub command: String,
    /// Its size.
    pub size: SizeName,
    /// How its process ended; an error where it never had one.
    pub ended: oneshot::Receiver<Exit>,
}

/// A one-off dyno cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// No such app, or none whose dynos dynomesh runs.
    #[error("dynomesh runs no dynos for the app {0}")]
    NotManaged(AppName),
    /// There is nothing to run.
    #[error("there is no command to run")]
    NoCommand,
    /// The bound of one app.
    #[error("the app {0} has {max} one-off dynos already", max = limits::ONE_OFFS_MAX)]
    TooMany(AppName),
    /// Eco dynos have no hours left.
    #[error("the eco dynos' hours of this month are used up")]
    OutOfHours,
    /// The daemon ends.
    #[error("dynomesh is stopping")]
    Stopping,
}

/// The one-off dynos that live.
#[derive(Default)]
pub(crate) struct OneOffs {
    living: BTreeMap<u64, LivingOneOff>,
}

pub(crate) struct LivingOneOff {
    pub(crate) app: AppName,
    pub(crate) dyno: DynoName,
    pub(crate) orders: watch::Sender<Orders>,
    /// Where its client comes in, until it has.
    pub(crate) door: Option<oneshot::Sender<Visitor>>,
}

impl OneOffs {
    /// A name that no other of the app has, made from a random number. `None`: there are too many.
    pub(crate) fn name(
        &self,
        app: &AppName,
        process_type: &ProcessType,
        random: u64,
    ) -> Option<DynoName> {
        let of_app = self.living.values().filter(|living| living.app == *app);
        let taken: BTreeSet<u32> = of_app.map(|living| living.dyno.number).collect();
        if taken.len() >= limits::ONE_OFFS_MAX {
            return None;
        }
        let numbers = DynoName::ONE_OFFS;
        let count = u64::from(numbers.end() - numbers.start()) + 1;
        let first = u32::try_from(random % count).ok()?;
        let number = (*numbers.start()..=*numbers.end())
            .cycle()
            .skip(first as usize)
            .take(taken.len() + 1)
            .find(|number| !taken.contains(number))?;
        Some(DynoName { process_type: process_type.clone(), number })
    }

    pub(crate) fn insert(&mut self, id: u64, living: LivingOneOff) {
        self.living.insert(id, living);
    }

    /// Forgets one that has ended; `false`: it is none of these.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        self.living.remove(&id).is_some()
    }

    pub(crate) fn find(&mut self, app: &AppName, dyno: &str) -> Option<&mut LivingOneOff> {
        self.living
            .values_mut()
            .find(|living| living.app == *app && living.dyno.to_string() == dyno)
    }

    /// Tells some of them to stop.
    pub(crate) fn stop_where(&self, which: impl Fn(&LivingOneOff) -> bool) {
        for living in self.living.values().filter(|living| which(living)) {
            living.orders.send_modify(|orders| orders.stop = true);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.living.is_empty()
    }
}

/// The command of a one-off dyno, with a process type of the Procfile as its first word written out. `None`:
/// there is none.
pub fn written_out(command: &str, commands: &BTreeMap<ProcessType, String>) -> Option<String> {
    let command = command.trim();
    let (first, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let of_type = ProcessType::parse(first).ok().and_then(|it| commands.get(&it));
    match of_type {
        Some(of_type) if rest.is_empty() => Some(of_type.clone()),
        Some(of_type) => Some(format!("{of_type} {}", rest.trim_start())),
        None if command.is_empty() => None,
        None => Some(command.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::tests::app_name;

    #[test]
    fn a_process_type_stands_for_its_command() {
        let types = [("console", "bin/console -v"), ("web", "serve")];
        let commands = types
            .map(|(name, command)| (ProcessType::parse(name).unwrap(), command.to_owned()))
            .into();
        let check = |command: &str, expected: Option<&str>| {
            assert_eq!(written_out(command, &commands).as_deref(), expected, "{command:?}");
        };
        check("console", Some("bin/console -v"));
        check(" console  --sandbox 'a b' ", Some("bin/console -v --sandbox 'a b'"));
        check("consoles", Some("consoles"));
        check("bash -c 'web'", Some("bash -c 'web'"));
        check("", None);
        check("  ", None);
    }

    #[test]
    fn names_are_drawn_and_never_given_twice() {
        let (shop, run) = (app_name("shop"), ProcessType::parse("run").unwrap());
        let mut one_offs = OneOffs::default();
        let mut names = BTreeSet::new();
        for id in 0..limits::ONE_OFFS_MAX as u64 {
            let dyno = one_offs.name(&shop, &run, u64::MAX - id % 3).unwrap();
            assert!(dyno.is_one_off());
            assert!(names.insert(dyno.to_string()), "{dyno} twice");
            let (orders, _) = watch::channel(crate::supervisor::tests::orders("sleep"));
            let living = LivingOneOff { app: shop.clone(), dyno, orders, door: None };
            one_offs.insert(id, living);
        }
        assert_eq!(one_offs.name(&shop, &run, 0), None);
        assert!(one_offs.name(&app_name("blog"), &run, 0).is_some());
        assert!(one_offs.remove(7) && !one_offs.remove(7));
        assert!(one_offs.name(&shop, &run, 0).is_some());
    }
}
