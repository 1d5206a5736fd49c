//! Where the heroku CLI meets the one-off dyno that it attaches to: a secret on a line of its own, within TLS, and then
//! the process' streams as they are.
//!
//! Invariant: a secret is good once and for a minute, and leads to that one dyno.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

use crate::config::limits;
use crate::control::Running;
use crate::control::attach::{Speaks, relay};
use crate::control::frames::{Frame, PAYLOAD_MAX};
use crate::hexadecimal;
use crate::model::AppName;
use crate::random;
use crate::shutdown::Shutdown;
use crate::supervisor::Ends;

/// What the CLI takes for the sign that the process runs; it throws away all that comes with it in one record.
const GREETING: &[u8] = b"rendezvous\r\n";
/// What `--exit-code` looks for in the output.
const EXIT_MARK: &str = "\u{FFFF} heroku-command-exit-status: ";
/// A shell's status of what could not be started.
const NOT_STARTED: i32 = 126;
const INTERRUPT: u8 = 3;
const END_OF_TRANSMISSION: u8 = 4;

/// The one-off dynos that wait for a client, by the secret that leads to them.
#[derive(Default)]
pub struct Rendezvous {
    waiting: Mutex<HashMap<String, Waiting>>,
}

/// One of them.
struct Waiting {
    app: AppName,
    dyno: String,
    /// Whether the client wants to see the exit status in the output.
    marks_exit: bool,
    until: Instant,
}

impl Rendezvous {
    /// A new secret, for a dyno that waits for its client as long as that is good.
    pub(in crate::control) fn invite(&self, app: &AppName, dyno: &str, marks_exit: bool) -> String {
        let now = Instant::now();
        let secret = hexadecimal::of(&random::secret::<32>());
        let until = now + limits::ATTACH_WAIT;
        let waiting = Waiting { app: app.clone(), dyno: dyno.to_owned(), marks_exit, until };
        let mut all = self.lock();
        all.retain(|_, waiting| now < waiting.until);
        all.insert(secret.clone(), waiting);
        secret
    }

    fn take(&self, secret: &str) -> Option<Waiting> {
        self.lock().remove(secret).filter(|waiting| Instant::now() < waiting.until)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command without what `--exit-code` puts behind it, and whether that was there: the status is ours to say, also of
/// a command that a signal ends or that is no shell's.
pub(in crate::control) fn without_exit_mark(command: &str) -> (&str, bool) {
    let echo = format!("; echo \"{EXIT_MARK}$?\"");
    match command.trim_end().strip_suffix(&echo) {
        Some(command) => (command.trim_end(), true),
        None => (command, false),
    }
}

/// Lets a client of this secret have its dyno, until one of both is gone. Who has no secret of ours is not spoken to.
pub(in crate::control) async fn meet(
    running: &Running,
    secret: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    shutdown: &Shutdown,
) {
    let Some(Waiting { app, dyno, marks_exit, .. }) = running.rendezvous.take(secret) else {
        return;
    };
    let session = running.supervisor.attach(&app, &dyno).await;
    let (from, mut to) = tokio::io::split(stream);
    if to.write_all(GREETING).await.is_err() || to.flush().await.is_err() {
        return;
    }
    let is_terminal =
        session.as_ref().is_some_and(|session| matches!(session.ends, Ends::Terminal(_)));
    let mut client = Client::new(from, to, is_terminal, marks_exit);
    let Some(session) = session else {
        let text = format!("{dyno} could not start; dynomesh logs -d {dyno} says why\r\n");
        // Who has left does not want to know.
        let _ = client.send(Frame::Output(text.into_bytes())).await;
        let _ = client.send(Frame::Exit(NOT_STARTED)).await;
        let _ = client.end().await;
        return;
    };
    tokio::select! {
        () = relay(client, session) => {}
        // Its client is told by the end of the stream, and the process by SIGHUP.
        () = shutdown.begun() => {}
    }
}

/// The CLI's side, as frames.
struct Client<S> {
    from: ReadHalf<S>,
    to: WriteHalf<S>,
    is_terminal: bool,
    marks_exit: bool,
    /// Received, and not taken by the process yet.
    input: Vec<u8>,
    /// Whether the process has taken what it was given.
    taken: bool,
    /// Whether the CLI has said that its input is at its end.
    has_ended: bool,
}

impl<S: AsyncRead + AsyncWrite> Client<S> {
    fn new(from: ReadHalf<S>, to: WriteHalf<S>, is_terminal: bool, marks_exit: bool) -> Self {
        let (input, taken, has_ended) = (Vec::new(), true, false);
        Self { from, to, is_terminal, marks_exit, input, taken, has_ended }
    }

    /// What was received, as the process gets it. A terminal reads keys by itself. To a pipe, the CLI sends the end of
    /// its input as a character at the very end; and where only its output is no terminal, Ctrl-C as one that comes
    /// alone.
    fn next_frame(&mut self) -> Frame {
        if !self.is_terminal {
            match self.input.as_slice() {
                [INTERRUPT] => {
                    self.input.clear();
                    return Frame::Signal(Signal::INT.as_raw() as u8);
                }
                [END_OF_TRANSMISSION] => {
                    self.input.clear();
                    (self.taken, self.has_ended) = (false, true);
                    return Frame::Input(Vec::new());
                }
                _ => {}
            }
        }
        let ends = !self.is_terminal && self.input.last() == Some(&END_OF_TRANSMISSION);
        let length = (self.input.len() - usize::from(ends)).min(PAYLOAD_MAX);
        self.taken = false;
        Frame::Input(self.input.drain(..length).collect())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Reads what nobody takes any more, until the end of the input is said or the client has left.
    async fn end_of_input(&mut self) {
        while !self.has_ended && self.input.last() != Some(&END_OF_TRANSMISSION) {
            self.input.clear();
            if !matches!(self.from.read_buf(&mut self.input).await, Ok(1..)) {
                return;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Speaks for Client<S> {
    /// Goes on to read while the process takes nothing, so that a client that leaves is heard; but no more than two
    /// frames' worth.
    async fn receive(&mut self) -> io::Result<Frame> {
        loop {
            if self.taken && !self.input.is_empty() {
                return Ok(self.next_frame());
            }
            if self.input.len() >= 2 * PAYLOAD_MAX {
                std::future::pending::<()>().await;
            }
            if self.from.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Output(bytes) => self.to.write_all(&bytes).await?,
            Frame::Exit(status) if self.marks_exit => {
                self.to.write_all(format!("{EXIT_MARK}{status}\n").as_bytes()).await?;
            }
            Frame::Exit(_) => {}
            Frame::Taken => {
                self.taken = true;
                return Ok(());
            }
            // Nobody here says these to a client.
            Frame::Input(_) | Frame::Resize { .. } | Frame::Signal(_) => {}
        }
        // What was written and not flushed would wait in TLS, and two writes would be one record.
        self.to.flush().await
    }

    /// The CLI dies of what it writes to a stream that has ended, and the process may be faster than it is with the end
    /// of its own input.
    async fn end(&mut self) -> io::Result<()> {
        if !self.is_terminal {
            // Whose input is open still is not waited for any longer.
            let _ = timeout(limits::ATTACH_END, self.end_of_input()).await;
        }
        self.to.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_good_once_and_for_a_minute() {
        let rendezvous = Rendezvous::default();
        let app = AppName::parse("shop").unwrap();
        let secret = rendezvous.invite(&app, "run.1", true);
        assert_eq!(secret.len(), 64);
        assert!(rendezvous.take(&secret[1..]).is_none());
        let waiting = rendezvous.take(&secret).unwrap();
        assert_eq!((waiting.app, &*waiting.dyno, waiting.marks_exit), (app.clone(), "run.1", true));
        assert!(rendezvous.take(&secret).is_none());
        let late = rendezvous.invite(&app, "run.2", false);
        advance(Duration::from_secs(61)).await;
        assert!(rendezvous.take(&late).is_none());
        // What nobody came for is forgotten.
        rendezvous.invite(&app, "run.3", false);
        advance(Duration::from_secs(61)).await;
        rendezvous.invite(&app, "run.4", false);
        assert_eq!(rendezvous.lock().len(), 1);
    }

    #[test]
    fn what_exit_code_adds_is_taken_off() {
        let mark = "; echo \"\u{FFFF} heroku-command-exit-status: $?\"";
        assert_eq!(without_exit_mark(&format!("exit 3 {mark}")), ("exit 3", true));
        assert_eq!(without_exit_mark(&format!("console{mark} ")), ("console", true));
        assert_eq!(without_exit_mark("echo 1 ; echo 2"), ("echo 1 ; echo 2", false));
    }

    fn client(is_terminal: bool) -> (DuplexStream, Client<DuplexStream>) {
        let (theirs, ours) = tokio::io::duplex(64 * 1024);
        let (from, to) = tokio::io::split(ours);
        (theirs, Client::new(from, to, is_terminal, true))
    }

    #[tokio::test]
    async fn to_a_pipe_the_last_character_is_the_end() {
        let (mut theirs, mut client) = client(false);
        theirs.write_all(b"data\x04more\n\x04").await.unwrap();
        assert_eq!(client.receive().await.unwrap(), Frame::Input(b"data\x04more\n".to_vec()));
        client.send(Frame::Taken).await.unwrap();
        assert_eq!(client.receive().await.unwrap(), Frame::Input(vec![]));
        client.send(Frame::Taken).await.unwrap();
        theirs.write_all(b"\x03").await.unwrap();
        assert_eq!(client.receive().await.unwrap(), Frame::Signal(2));
        drop(theirs);
        assert!(client.receive().await.is_err());
    }

    #[tokio::test]
    async fn a_terminal_gets_every_key() {
        let (mut theirs, mut client) = client(true);
        theirs.write_all(b"\x03").await.unwrap();
        assert_eq!(client.receive().await.unwrap(), Frame::Input(vec![3]));
        client.send(Frame::Taken).await.unwrap();
        theirs.write_all(b"\x04").await.unwrap();
        assert_eq!(client.receive().await.unwrap(), Frame::Input(vec![4]));
    }

    #[tokio::test]
    async fn who_leaves_is_heard_while_the_process_takes_nothing() {
        let (mut theirs, mut client) = client(true);
        theirs.write_all(b"typed").await.unwrap();
        client.receive().await.unwrap();
        theirs.write_all(b"ahead").await.unwrap();
        drop(theirs);
        assert!(client.receive().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_ends_after_the_end_of_the_input_or_without_it_in_time() {
        // The process has ended, and the client says so much of its input then, or before.
        let check = async |before: &[u8], then: &[u8], expected: Duration| {
            let (mut theirs, mut client) = client(false);
            let begun = Instant::now();
            for input in before.chunks(1) {
                theirs.write_all(input).await.unwrap();
                client.receive().await.unwrap();
                client.send(Frame::Taken).await.unwrap();
            }
            let said = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                theirs.write_all(then).await.unwrap();
                theirs.read_to_end(&mut Vec::new()).await.unwrap();
            };
            let (ended, ()) = tokio::join!(client_ends(client), said);
            assert_eq!(ended - begun, expected, "{before:?} {then:?}");
        };
        check(b"a", b"late\x04", Duration::from_millis(20)).await;
        check(b"a\x04", b"", Duration::ZERO).await;
        check(b"a", b"open", limits::ATTACH_END).await;
        // Who has left is not waited for.
        let (theirs, client) = client(false);
        drop(theirs);
        let begun = Instant::now();
        assert_eq!(client_ends(client).await, begun);
    }

    /// When a client's stream has ended.
    async fn client_ends(mut client: Client<DuplexStream>) -> Instant {
        let _ = client.end().await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn the_exit_is_marked_in_one_piece() {
        let (mut theirs, mut client) = client(false);
        client.send(Frame::Output(b"out".to_vec())).await.unwrap();
        client.send(Frame::Exit(7)).await.unwrap();
        client.end().await.unwrap();
        let mut said = String::new();
        theirs.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "out\u{FFFF} heroku-command-exit-status: 7\n");
    }
}
