//! Load at a fixed rate; latency from the moment each request was due, not from when it could be sent.
//!
//! `paced --rate N --connections N --seconds S [--certificate FILE] ADDRESS PATH`. The requests
//! of a connection are due at equal steps, the connections shifted against each other. A request that is due
//! while its connection still waits is sent late and its waiting counts: a proxy that stalls is charged for
//! every request it held up.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use compare_tools::client::{self, Client};
use compare_tools::options::Options;
use compare_tools::tally::Tally;
use compare_tools::target::Target;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::task::LocalSet;

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(drive()))
}

async fn drive() -> Result<(), String> {
    let options = Options::parse()?;
    let [addr, path] = options.rest.as_slice() else {
        return Err(
            "usage: paced --rate N --connections N --seconds S [--certificate FILE] ADDRESS PATH"
                .into(),
        );
    };
    let target = Target::from_options(&options, addr)?;
    let rate: f64 = options.require("rate")?;
    let connections: u32 = options.require("connections")?;
    let seconds: f64 = options.require("seconds")?;
    let step = Duration::from_secs_f64(f64::from(connections) / rate);
    let request: Rc<[u8]> = client::request("GET", target.addr(), path, 0).into();
    let tally = Rc::new(RefCell::new(Tally::default()));
    // All connections are there before the first request is due.
    let start = now() + Duration::from_millis(300);
    let end = start + Duration::from_secs_f64(seconds);
    let tasks = (0..connections).map(|number| {
        let first = start + step * number / connections;
        tokio::task::spawn_local(keep_pace(
            Client::new(&target),
            request.clone(),
            first,
            step,
            end,
            tally.clone(),
        ))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|error| error.to_string())??;
    }
    let took = now().saturating_sub(start).as_secs_f64().max(seconds);
    let tally = tally.take();
    println!("rate {:.1}", tally.answers() as f64 / took);
    tally.print();
    Ok(())
}

async fn keep_pace(
    mut client: Client,
    request: Rc<[u8]>,
    first: Duration,
    step: Duration,
    end: Duration,
    tally: Rc<RefCell<Tally>>,
) -> Result<(), String> {
    let alarm = Alarm::new().map_err(|error| format!("make a timer: {error}"))?;
    let mut due = first;
    while due < end {
        alarm.at(due).await.map_err(|error| format!("wait for a timer: {error}"))?;
        let outcome = client.exchange(&request).await;
        tally.borrow_mut().add(now().saturating_sub(due), outcome);
        due += step;
    }
    Ok(())
}

/// Time since boot.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A timer of the kernel: the runtime's own timers have steps of a millisecond, ten times what a proxy takes.
struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(
        deprecated,
        reason = "its safe form; what makes it unsound, a changing descriptor, an OwnedFd has not"
    )]
    fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Returns at `time`, or at once where that has passed.
    async fn at(&self, time: Duration) -> std::io::Result<()> {
        if time <= now() {
            return Ok(());
        }
        let value =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut guard = self.0.readable().await?;
            let mut expirations = [0; 8];
            match guard.try_io(|fd| Ok(rustix::io::read(fd, &mut expirations)?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}
