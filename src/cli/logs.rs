//! `dynomesh logs`

use std::collections::HashMap;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::cli::app::{App, Daemon, accepted};
use crate::control::{self, LogSession, LogSessionCreate, Streamed};
use crate::model::ListenAddr;

/// What an answer comes within; where lines that were just logged are waited for, too.
const WITHIN: Duration = Duration::from_secs(10);
/// How long a daemon that has gone is waited for: a restart with all dynos takes some ten seconds.
const RETURN: Duration = Duration::from_secs(120);
/// How long until it is sought again.
const SEEK: Duration = Duration::from_millis(250);

/// Print what an app said: its output, its router's lines, what happened to its dynos
#[derive(clap::Args)]
pub(in crate::cli) struct Logs {
    #[command(flatten)]
    app: App,
    /// How many lines, 1500 at most
    #[arg(short, long, value_name = "N", default_value_t = 100)]
    num: u64,
    /// Go on with what comes
    #[arg(short, long)]
    tail: bool,
    /// Of this dyno alone: web.1
    #[arg(short, long, value_name = "DYNO", alias = "dyno", conflicts_with = "process_type")]
    dyno_name: Option<String>,
    /// Of this process type alone: web, router
    #[arg(short, long, value_name = "TYPE", alias = "ps")]
    process_type: Option<String>,
    /// Of this source alone: app, heroku
    #[arg(short, long, value_name = "SOURCE")]
    source: Option<String>,
    /// As JSON, an object a line: at, source, dyno, message
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Logs {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let addr = self.daemon.addr()?;
        let wanted = LogSessionCreate {
            lines: Some(self.num),
            tail: self.tail,
            source: self.source.clone(),
            dyno: self.dyno_name.clone().or_else(|| self.process_type.clone()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("start a runtime")?.block_on(async {
            let body = Bytes::from(serde_json::to_vec(&wanted)?);
            let path = format!("/apps/{app}/log-sessions");
            let reply = control::send(&addr, Method::POST, &path, body, WITHIN).await?;
            let session: LogSession = serde_json::from_slice(&accepted(reply)?.body)
                .context("read the daemon's answer")?;
            let printer = Printer::new(if self.json { Form::Json } else { Form::for_people() });
            let printed = read(&addr, &session.logplex_url, self.tail, printer).await;
            match printed.as_ref().err().and_then(|error| error.downcast_ref::<io::Error>()) {
                // `logs | head` has seen enough.
                Some(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
                _ => printed.map(|()| ExitCode::SUCCESS),
            }
        })
    }
}

/// Prints a session to its end; one that follows, over the daemon's restarts.
async fn read(
    addr: &ListenAddr,
    path: &str,
    tail: bool,
    mut printer: Printer,
) -> anyhow::Result<()> {
    let mut gone_since: Option<Instant> = None;
    loop {
        let last = printer.events.last_id.clone();
        match control::stream(addr, path, last.as_deref(), WITHIN).await {
            Ok(Ok(mut stream)) => {
                gone_since = None;
                let ended = printer.print(&mut stream).await;
                if !tail {
                    return ended;
                }
                // The daemon has gone, or lets us go; a full disk or a closed pipe is ours.
                if let Err(error) = ended
                    && error.is::<io::Error>()
                {
                    return Err(error);
                }
            }
            Ok(Err(reply)) => bail!("{}", control::message(&reply.body)),
            Err(error) if !tail => return Err(error.into()),
            Err(error) => {
                let since = *gone_since.get_or_insert_with(Instant::now);
                if since.elapsed() > RETURN {
                    return Err(error.into());
                }
            }
        }
        sleep(SEEK).await;
    }
}

struct Printer {
    events: Events,
    form: Form,
}

/// How a line is printed.
enum Form {
    Plain,
    Coloured(Colours),
    Json,
}

impl Form {
    fn for_people() -> Self {
        let asked = |name: &str, value: &str| std::env::var(name).is_ok_and(|it| it == value);
        let plain = std::env::var_os("NO_COLOR").is_some() || asked("HEROKU_LOGS_COLOR", "0");
        if io::stdout().is_terminal() && !plain {
            Self::Coloured(Colours::default())
        } else {
            Self::Plain
        }
    }

    fn of(&mut self, line: String) -> serde_json::Result<String> {
        match self {
            Self::Plain => Ok(line),
            Self::Coloured(colours) => Ok(colours.of(&line)),
            Self::Json => serde_json::to_string(&Parts::of(&line)),
        }
    }
}

/// A line as the daemon writes it: `AT SOURCE[DYNO]: MESSAGE`. One that is not so is a message.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Parts<'a> {
    at: Option<&'a str>,
    source: Option<&'a str>,
    dyno: Option<&'a str>,
    message: &'a str,
}

impl<'a> Parts<'a> {
    fn of(line: &'a str) -> Self {
        let parts = || {
            let (head, message) = line.split_once("]: ")?;
            let (at, process) = head.split_once(' ')?;
            let (source, dyno) = process.split_once('[')?;
            Some(Self { at: Some(at), source: Some(source), dyno: Some(dyno), message })
        };
        parts().unwrap_or(Self { at: None, source: None, dyno: None, message: line })
    }
}

impl Printer {
    fn new(form: Form) -> Self {
        Self { events: Events::default(), form }
    }

    async fn print(&mut self, stream: &mut Streamed) -> anyhow::Result<()> {
        self.events.begin();
        while let Some(bytes) = stream.next().await? {
            let mut out = Vec::new();
            for line in self.events.take(&bytes) {
                out.extend_from_slice(self.form.of(line)?.as_bytes());
                out.push(b'\n');
            }
            let mut stdout = io::stdout().lock();
            stdout.write_all(&out).and_then(|()| stdout.flush())?;
        }
        Ok(())
    }
}

/// Server-sent events (HTML Living Standard, §9.2), as far as the daemon sends them.
#[derive(Default)]
struct Events {
    buffer: Vec<u8>,
    data: Vec<String>,
    id: Option<String>,
    /// Of the last event that was whole.
    last_id: Option<String>,
}

impl Events {
    /// On a new connection; half an event of the last one is none.
    fn begin(&mut self) {
        self.buffer.clear();
        self.data.clear();
        self.id = None;
    }

    /// The lines of the events that these bytes finish.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.buffer.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            let value = |name: &str| {
                let value = line.strip_prefix(name)?.strip_prefix(':')?;
                Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
            };
            if line.is_empty() {
                lines.append(&mut self.data);
                if let Some(id) = self.id.take() {
                    self.last_id = Some(id);
                }
            } else if let Some(data) = value("data") {
                self.data.push(data);
            } else if let Some(id) = value("id") {
                self.id = Some(id);
            }
        }
        lines
    }
}

/// A colour for each process type, the same each time for those that everybody has.
struct Colours {
    of_type: HashMap<String, usize>,
}

/// Of a terminal: yellow, green, cyan, magenta, blue, and the same bold.
const COLOURS: [&str; 10] = ["33", "32", "36", "35", "34", "1;32", "1;36", "1;35", "1;33", "1;34"];

impl Default for Colours {
    fn default() -> Self {
        let first = ["run", "router", "web", "postgres", "heroku-postgres"];
        let of_type = first.iter().enumerate().map(|(index, name)| ((*name).to_owned(), index));
        Self { of_type: of_type.collect() }
    }
}

impl Colours {
    /// The line with its time stamp and its source in a colour.
    fn of(&mut self, line: &str) -> String {
        let Some(end) = line.find("]: ").map(|at| at + 2) else { return line.to_owned() };
        let (head, message) = line.split_at(end);
        let process = head.split_once('[').map_or("", |(_, process)| process);
        let process_type = process.split(['.', ']']).next().unwrap_or_default();
        let next = self.of_type.len();
        let index = *self.of_type.entry(process_type.to_owned()).or_insert(next);
        format!("\x1b[{}m{head}\x1b[0m{message}", COLOURS[index % COLOURS.len()])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_are_lines_and_ids() {
        let mut events = Events::default();
        assert_eq!(events.take(b"retry: 1\n\nid: 7\ndata: one\n\n:\n\nid: 8\nda"), ["one"]);
        assert_eq!(events.last_id.as_deref(), Some("7"));
        assert_eq!(events.take(b"ta: two\ndata:three\n\n"), ["two", "three"]);
        assert_eq!(events.last_id.as_deref(), Some("8"));
        assert_eq!(events.take(b"id: 9\ndata: half\n"), Vec::<String>::new());
        events.begin();
        assert_eq!(events.take(b"data: whole\n\n"), ["whole"]);
        assert_eq!(events.last_id.as_deref(), Some("8"));
    }

    proptest! {
        #[test]
        fn any_split_of_the_events_gives_the_same_lines(at in 0usize..60) {
            let text = b"id: 1\ndata: a\n\n:\n\nid: 2\ndata: caf\xc3\xa9\n\nid: 3\ndata: c\n\n";
            let (first, second) = text.split_at(at.min(text.len()));
            let mut events = Events::default();
            let lines = [events.take(first), events.take(second)].concat();
            prop_assert_eq!(lines, ["a", "caf\u{e9}", "c"]);
        }
    }

    #[test]
    fn a_line_has_its_parts_as_json() {
        let json = |line: &str| Form::Json.of(line.to_owned()).unwrap();
        assert_eq!(
            json("T heroku[router]: at=info path=\"/[a]: b\""),
            r#"{"at":"T","source":"heroku","dyno":"router","message":"at=info path=\"/[a]: b\""}"#
        );
        assert_eq!(json("no head"), r#"{"at":null,"source":null,"dyno":null,"message":"no head"}"#);
    }

    #[test]
    fn a_process_type_keeps_its_colour() {
        let mut colours = Colours::default();
        assert_eq!(colours.of("T app[web.1]: hi [a]: b"), "\x1b[36mT app[web.1]:\x1b[0m hi [a]: b");
        let first = colours.of("T app[worker.1]: x");
        assert!(first.starts_with("\x1b[1;32mT"), "{first:?}");
        assert_eq!(colours.of("T app[worker.1]: x"), first);
        assert_eq!(colours.of("no head"), "no head");
    }
}
