//! Clients that take their time, so that somebody can see what they cost a proxy and its other clients.
//!
//! `slow --certificate FILE [--hellos N] [--heads N] [--bodies N] [--readers N] ADDRESS`: so many connections
//! that stop half-way through their ClientHello, and so many that do their handshake and then send a head, send
//! a body, or take an answer of 1 MB at a byte a second. None comes back once the proxy has closed it.
//!
//! Driven by lines on standard input: `begin` has all of them take their places; `held` asks how many are still
//! there. Each is answered by `done NUMBER`: how many could not begin, how many are held. The end of the input
//! ends the program.

use std::cell::Cell;
use std::io::BufRead;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use compare_tools::client::{self, Loss};
use compare_tools::options::Options;
use compare_tools::target::{Stream, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::sleep;

/// How many take their places at a time: they are to be many, not fast.
const LANES: usize = 64;
/// Between two bytes.
const STEP: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(drive()))
}

async fn drive() -> Result<(), String> {
    let options = Options::parse()?;
    let [addr] = options.rest.as_slice() else {
        return Err("usage: slow --certificate FILE [--hellos N] … ADDRESS".into());
    };
    options.require::<String>("certificate")?;
    let crowd = Rc::new(Crowd {
        target: Target::from_options(&options, addr)?,
        held: Cell::new(0),
        failures: Cell::new(0),
    });
    let manners = [
        (Manner::Hello, options.get("hellos", 0)?),
        (Manner::Head, options.get("heads", 0)?),
        (Manner::Body, options.get("bodies", 0)?),
        (Manner::Reader, options.get("readers", 0)?),
    ];
    let all: Vec<Manner> = manners
        .into_iter()
        .flat_map(|(manner, count)| std::iter::repeat_n(manner, count))
        .collect();
    while let Some(line) = read_line().await? {
        let number = match line.trim_end() {
            "begin" => crowd.clone().begin(&all).await?,
            "held" => crowd.held.get(),
            other => return Err(format!("{other:?} is neither begin nor held")),
        };
        println!("done {number}");
    }
    Ok(())
}

/// The next line of standard input. In a thread of its own: the crowd goes on meanwhile.
async fn read_line() -> Result<Option<String>, String> {
    let read = || {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|size| (size > 0).then_some(line))
    };
    let line = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    line.map_err(|error| error.to_string())
}

/// What a client is slow at.
#[derive(Clone, Copy)]
enum Manner {
    Hello,
    Head,
    Body,
    Reader,
}

struct Crowd {
    target: Target,
    held: Cell<usize>,
    failures: Cell<usize>,
}

impl Crowd {
    /// Returns once each has taken its place, with the number of those that could not.
    async fn begin(self: Rc<Self>, all: &[Manner]) -> Result<usize, String> {
        let lanes = (0..LANES).map(|lane| {
            let crowd = self.clone();
            let mine: Vec<Manner> = all.iter().copied().skip(lane).step_by(LANES).collect();
            tokio::task::spawn_local(async move {
                for manner in mine {
                    crowd.clone().admit(manner).await;
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.map_err(|error| error.to_string())?;
        }
        Ok(self.failures.get())
    }

    async fn admit(self: Rc<Self>, manner: Manner) {
        match self.take_place(manner).await {
            Ok(place) => {
                self.held.set(self.held.get() + 1);
                tokio::task::spawn_local(async move {
                    place.stay().await;
                    self.held.set(self.held.get() - 1);
                });
            }
            Err(_loss) => self.failures.set(self.failures.get() + 1),
        }
    }

    async fn take_place(&self, manner: Manner) -> Result<Place, Loss> {
        let addr = self.target.addr();
        let start = match manner {
            Manner::Hello => return self.stop_in_hello().await,
            Manner::Head => format!("{}X-Slow: ", client::head("GET", addr, "/small")),
            Manner::Body => {
                format!("{}Content-Length: 1000000\r\n\r\n", client::head("POST", addr, "/small"))
            }
            Manner::Reader => format!("{}\r\n", client::head("GET", addr, "/bytes/1000000")),
        };
        let mut stream = match manner {
            Manner::Reader => self.target.connect_narrow().await?,
            _ => self.target.connect().await?,
        };
        stream.write_all(start.as_bytes()).await.map_err(|_| Loss::Cut)?;
        stream.flush().await.map_err(|_| Loss::Cut)?;
        Ok(match manner {
            Manner::Reader => Place::Reading(stream),
            _ => Place::Writing(stream),
        })
    }

    async fn stop_in_hello(&self) -> Result<Place, Loss> {
        let hello = self.target.client_hello().ok_or(Loss::Handshake)?;
        let mut stream = TcpStream::connect(self.target.addr()).await.map_err(|_| Loss::Refused)?;
        stream.write_all(&hello[..hello.len() / 2]).await.map_err(|_| Loss::Cut)?;
        Ok(Place::Waiting(stream))
    }
}

/// A client that has begun.
enum Place {
    /// Says no more.
    Waiting(TcpStream),
    /// Sends a byte now and then.
    Writing(Stream),
    /// Takes a byte now and then.
    Reading(Stream),
}

impl Place {
    /// Returns when the proxy has had enough: it closed, or answered what was not asked to the end.
    async fn stay(self) {
        match self {
            Self::Waiting(mut stream) => {
                let _ended = stream.read(&mut [0]).await;
            }
            Self::Writing(mut stream) => loop {
                let mut answer = [0];
                tokio::select! {
                    // Nothing of an answer can be lost: its first byte is the end.
                    _ended = stream.read(&mut answer) => return,
                    () = sleep(STEP) => {}
                }
                if stream.write_all(b"x").await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            },
            Self::Reading(mut stream) => loop {
                sleep(STEP).await;
                if !matches!(stream.read(&mut [0]).await, Ok(1)) {
                    return;
                }
            },
        }
    }
}
