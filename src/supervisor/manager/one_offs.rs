//! One-off dynos: begun, taken over from an earlier daemon, and the doors by which their clients come in.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::model::{AppName, DynoName, Size, Sizes};
use crate::random;
use crate::supervisor::manager::adopt::{since, time_of};
use crate::supervisor::manager::{Formed, Manager};
use crate::supervisor::one_off::{OneOff, Visitor};
use crate::supervisor::place::{Orders, Place};
use crate::supervisor::program::{Program, Streams};
use crate::supervisor::run::{Begun, LivingOneOff, RunError, RunOrder, written_out};
use crate::supervisor::spawn::Spawn;
use crate::supervisor::survivors::Survivor;

impl<S: Spawn> Manager<S> {
    /// Begins one that somebody wants; `of` what its app runs, or is to run.
    pub(super) fn run_one_off(
        &mut self,
        order: RunOrder,
        of: Option<&Formed>,
    ) -> Result<Begun, RunError> {
        let RunOrder { app, process_type, command, env, size, streams } = order;
        let formed = of.or_else(|| self.apps.get(&app));
        let formed = formed.ok_or_else(|| RunError::NotManaged(app.clone()))?;
        let command = written_out(&command, &formed.app.commands).ok_or(RunError::NoCommand)?;
        let size = size.unwrap_or_else(|| formed.app.size.clone());
        if self.eco_used_up && size.name.is_eco() {
            return Err(RunError::OutOfHours);
        }
        let dyno = self.one_offs.name(&app, &process_type, random::number());
        let dyno = dyno.ok_or_else(|| RunError::TooMany(app.clone()))?;
        let orders = formed.one_off_orders(command.clone(), env, size.clone());
        let (door, comes_in) = match streams {
            Streams::Log => (None, None),
            Streams::Terminal { .. } | Streams::Pipes => {
                let (door, comes_in) = oneshot::channel();
                (Some(door), Some(comes_in))
            }
        };
        let place = self.list_one_off(app, dyno.clone(), orders, door);
        let (told, ended) = oneshot::channel();
        let (spawn, routes) = (self.means.spawn.clone(), self.means.routes.clone());
        let one_off = OneOff { place, spawn, routes, streams, door: comes_in, ended: told };
        self.means.shutdown.spawn(one_off.live());
        Ok(Begun { dyno, command, size: size.name.clone(), ended })
    }

    /// Takes one over that an earlier daemon has begun. Those that had a client have lost it with that daemon, and
    /// are given back.
    pub(super) fn adopt_one_off(
        &mut self,
        survivor: Survivor<S::Process>,
        formed: &Formed,
        sizes: &Sizes,
    ) -> Option<Survivor<S::Process>> {
        let order = &survivor.order;
        if survivor.is_stopping || order.terminal.is_some() || order.stdin {
            return Some(survivor);
        }
        let size = order.identity.size.as_deref().and_then(|name| sizes.find(name)).cloned();
        let size = size.unwrap_or_else(|| formed.app.size.clone());
        let mut orders = formed.one_off_orders(order.command.clone(), BTreeMap::new(), size);
        let release = order.identity.release;
        orders.program = Arc::new(Program { release, ..Program::clone(&orders.program) });
        let (app, dyno) = (survivor.app.clone(), survivor.dyno.clone());
        let place = self.list_one_off(app, dyno, orders, None);
        place.say(format_args!("Adopted, up since {}", time_of(since(&survivor))));
        self.note_adopted(place.id, &survivor);
        // Who wanted to know how it ends is gone.
        let (ended, _) = oneshot::channel();
        let (spawn, routes) = (self.means.spawn.clone(), self.means.routes.clone());
        let streams = Streams::Log;
        let boot = place.timeouts().boot;
        let running = self.running(survivor, &place, boot);
        let one_off = OneOff { place, spawn, routes, streams, door: None, ended };
        self.means.shutdown.spawn(one_off.go_on(running));
        None
    }

    fn list_one_off(
        &mut self,
        app: AppName,
        dyno: DynoName,
        orders: Orders,
        door: Option<oneshot::Sender<Visitor>>,
    ) -> Place {
        let program = orders.program.clone();
        let (place, orders) = self.place(&app, &dyno, orders, Arc::default());
        let shown = (program.command.clone(), program.size.name.clone());
        self.means.board.list(place.id, app.clone(), dyno.clone(), Some(shown));
        self.one_offs.insert(place.id, LivingOneOff { app, dyno, orders, door });
        place
    }

    /// Lets a client in to the one that waits for it; forgets the client where none does.
    pub(super) fn attach(&mut self, app: &AppName, dyno: &str, visitor: Visitor) {
        let door = self.one_offs.find(app, dyno).and_then(|living| living.door.take());
        if let Some(door) = door {
            // It may be ending: then the client hears that as well.
            let _ = door.send(visitor);
        }
    }
}

impl Formed {
    /// What a one-off dyno is told.
    fn one_off_orders(
        &self,
        command: String,
        env: BTreeMap<String, String>,
        size: Arc<Size>,
    ) -> Orders {
        let release = self.releases.standing();
        let mut config_vars = BTreeMap::clone(&release.config_vars);
        config_vars.extend(env);
        let program = Program {
            release: release.number,
            command,
            dir: self.app.dir.clone(),
            size,
            config_vars: Arc::new(config_vars),
        };
        self.orders_to_run(program)
    }
}
