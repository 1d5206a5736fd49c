//! Lines that are not requests: what apps print, what happens to dynos, what the daemon says.

use std::fmt::Display;
use std::io::Write;

use crate::model::AppName;
use crate::telemetry::{Lines, Stamp};

/// Writes `TIMESTAMP APP SOURCE[PROCESS]: MESSAGE` lines (README, "The line of a request"). Cheap to clone.
#[derive(Clone)]
pub struct AppLog(Lines);

impl AppLog {
    /// Lines go to this writer.
    pub fn new(lines: Lines) -> Self {
        Self(lines)
    }

    /// A line of the platform about a process: `shop heroku[web.1]: State changed from starting to up`.
    /// `false`: dropped.
    pub fn platform(&self, app: &AppName, process: &dyn Display, message: &dyn Display) -> bool {
        self.write(Some(app), "heroku", process, |out| write!(out, "{message}"))
    }

    /// As [`platform`](Self::platform), for a line that is said again until somebody takes it.
    pub(crate) fn try_platform(
        &self,
        app: &AppName,
        process: &dyn Display,
        message: &dyn Display,
    ) -> bool {
        self.0.try_send(line(Some(app), "heroku", process, |out| write!(out, "{message}")))
    }

    /// A line that an app's process printed: `shop app[web.1]: Listening on 5000`. `false`: dropped.
    pub fn output(&self, app: &AppName, process: &dyn Display, line: &[u8]) -> bool {
        self.write(Some(app), "app", process, |out| out.write_all(line))
    }

    /// Lines that an app's process printed, as [`output`](Self::output), as one block: a burst of lines takes
    /// one place of the queue. `false`: all were dropped.
    pub fn outputs<'a>(
        &self,
        app: &AppName,
        process: &dyn Display,
        lines: impl IntoIterator<Item = &'a [u8]>,
    ) -> bool {
        let mut out = Vec::new();
        let mut head = Vec::with_capacity(64);
        Stamp::default().write_now(&mut head);
        // Writing to a Vec does not fail.
        let _ = write!(head, " {app} app[{process}]: ");
        for line in lines {
            out.extend_from_slice(&head);
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        self.0.send(out)
    }

    /// A line of the daemon about itself: `- dynomesh[daemon]: listening on 127.0.0.1:8080`.
    pub fn daemon(&self, part: &dyn Display, message: &dyn Display) {
        self.write(None, "dynomesh", part, |out| write!(out, "{message}"));
    }

    /// Blocks until everything is written. For the end of the process.
    pub fn flush(&self) {
        self.0.flush();
    }

    fn write(
        &self,
        app: Option<&AppName>,
        source: &str,
        process: &dyn Display,
        message: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
    ) -> bool {
        self.0.send(line(app, source, process, message))
    }
}

fn line(
    app: Option<&AppName>,
    source: &str,
    process: &dyn Display,
    message: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    Stamp::default().write_now(&mut out);
    let app = app.map_or("-", AppName::as_str);
    // Writing to a Vec does not fail.
    let _ = write!(out, " {app} {source}[{process}]: ");
    let _ = message(&mut out);
    out.push(b'\n');
    out
}
