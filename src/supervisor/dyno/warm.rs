//! *Warm*: the process of the release before, out of the line-up, for the case that it is wanted again.
//!
//! It has finished what it held and is told nothing; to the dyno it is what a successor would be that has booted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::config::print_duration;
use crate::supervisor::dyno::Dyno;
use crate::supervisor::place::Place;
use crate::supervisor::program::Program;
use crate::supervisor::running::{Running, drain};
use crate::supervisor::spawn::{Process, Spawn};

/// A process that is kept warm.
pub(super) struct Warm<P> {
    program: Arc<Program>,
    /// Whoever takes it has it: the dyno, to run it again, or whoever watches over it, to end it.
    running: Arc<Mutex<Option<Running<P>>>>,
    /// What it held when it left the line-up is finished.
    finished: CancellationToken,
    /// Nobody has to watch over it any longer.
    over: CancellationToken,
}

impl<P: Process> Warm<P> {
    fn take_if(
        running: &Mutex<Option<Running<P>>>,
        is_wanted: impl FnOnce(&Running<P>) -> bool,
    ) -> Option<Running<P>> {
        // Nothing panics while this lock is held, so poison says nothing.
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        running.take_if(|running| is_wanted(running))
    }
}

impl<P> Drop for Warm<P> {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl<S: Spawn> Dyno<S> {
    /// A process has been replaced, and its record is out of the line-up: it ends in its own time, or is kept warm,
    /// where it is of another release and that is wanted. What has given way to a warm one is nothing to go back to, and
    /// the next daemon would take it, as the younger one, for the dyno.
    pub(super) fn see_off(
        &mut self,
        replaced: Running<S::Process>,
        successor: &Running<S::Process>,
    ) {
        let keep_warm = self.place.orders.borrow().keep_warm;
        let of_other = |program: &Arc<Program>| program.release != self.ran.release;
        let program = replaced.program.clone().filter(of_other);
        let program = program.filter(|_| !successor.was_warm());
        match keep_warm.zip(program) {
            Some((time, program)) => self.keep_warm(replaced, program, time),
            None => self.retire(replaced),
        }
    }

    fn keep_warm(
        &mut self,
        mut replaced: Running<S::Process>,
        program: Arc<Program>,
        time: Duration,
    ) {
        let place = self.place.clone();
        let text = print_duration(time);
        place.say(format_args!("v{} is kept warm for {text}", program.release));
        let (process, routes) = (replaced.process.clone(), replaced.routes.clone());
        let record = replaced.record.take();
        let running = Arc::new(Mutex::new(Some(replaced)));
        let (over, finished) = (CancellationToken::new(), CancellationToken::new());
        let warm = Warm {
            program,
            running: running.clone(),
            finished: finished.clone(),
            over: over.clone(),
        };
        // One that was warm before goes.
        self.warm = Some(warm);
        self.own(async move {
            let drained = async {
                if let Some(record) = &record {
                    drain(record, &*process, &routes, &place).await;
                }
                finished.cancel();
            };
            let mut of_place = place.clone();
            let waited = async {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = process.ended() => {}
                    () = time::sleep(time) => {}
                    () = not_wanted(&mut of_place) => {}
                }
            };
            tokio::join!(drained, waited);
            let Some(running) = Warm::take_if(&running, |_| true) else { return };
            if process.has_ended() {
                let exit = running.exit().await;
                running.bury(&place, exit).await;
            } else {
                running.terminate(&place).await;
            }
        });
    }

    /// The warm process, if it runs just this, as a process that has been started now. One that runs anything else
    /// goes if this is another release than that of the process that counts.
    pub(super) fn rewarmed(&mut self, program: &Arc<Program>) -> Option<Running<S::Process>> {
        let is_same = |warm: &mut Warm<_>| warm.program.runs_as(program);
        let Some(warm) = self.warm.take_if(is_same) else {
            self.warm.take_if(|_| program.release != self.ran.release);
            return None;
        };
        // One that has ended is its watcher's to bury.
        let running = Warm::take_if(&warm.running, |it| !it.process.has_ended())?;
        self.place.say(format_args!("v{} is warm, and goes on", warm.program.release));
        Some(running.again(&self.place, program.clone(), warm.finished.clone()))
    }
}

/// Returns once a dyno is told to run nothing.
async fn not_wanted(place: &mut Place) {
    // Whoever gives the orders is gone: that is a stop.
    let _ = place.orders.wait_for(|orders| orders.stop || orders.asleep).await;
}
