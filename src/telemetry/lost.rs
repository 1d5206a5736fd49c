//! Lines that somebody lost: counted at once, and said when there is room again.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::counter;

use crate::telemetry::Stamp;
use crate::telemetry::split::tally;
use crate::wall_clock;

/// Lines that nobody will read, by app.
pub const LINES_DROPPED: &str = "dynomesh_log_lines_dropped_total";

/// Counts the lines of a block that somebody could not take, by app.
pub(crate) fn count_dropped(block: &[u8]) {
    for (app, lines) in tally(block) {
        counter!(LINES_DROPPED, "app" => app).increment(lines);
    }
}

/// Lines that were lost and not spoken of yet, by app.
#[derive(Clone, Default)]
pub(crate) struct LostLines(BTreeMap<String, Lost>);

#[derive(Clone)]
struct Lost {
    lines: u64,
    /// When the first was lost.
    since: Duration,
}

/// What one app is told of its lost lines.
pub(crate) struct Said {
    pub(crate) app: String,
    /// The present.
    pub(crate) stamp: Vec<u8>,
    /// `heroku[logplex]: Error L12: 3 messages dropped since …`
    pub(crate) rest: String,
}

impl LostLines {
    /// Notes those of a block.
    pub(crate) fn add(&mut self, block: &[u8]) {
        for (app, lines) in tally(block) {
            self.note(&app, lines);
        }
    }

    /// Notes so many lines of an app.
    pub(crate) fn note(&mut self, app: &str, lines: u64) {
        let new = || Lost { lines: 0, since: wall_clock::since_epoch() };
        self.0.entry(app.to_owned()).or_insert_with(new).lines += lines;
    }

    /// What each app that lost some is told; nobody is told again.
    pub(crate) fn say(&mut self, code: &str) -> Vec<Said> {
        let said = |(app, Lost { lines, since }): (String, Lost)| {
            let (mut stamp, mut then) = (Vec::new(), Vec::new());
            Stamp::default().write_now(&mut stamp);
            Stamp::default().write(&mut then, since);
            let then = String::from_utf8_lossy(&then);
            let rest =
                format!("heroku[logplex]: Error {code}: {lines} messages dropped since {then}.");
            Said { app, stamp, rest }
        };
        std::mem::take(&mut self.0).into_iter().map(said).collect()
    }
}

/// The same as lines of the log.
pub(crate) fn as_block(said: &[Said]) -> Vec<u8> {
    let mut out = Vec::new();
    for Said { app, stamp, rest } in said {
        out.extend_from_slice(stamp);
        out.extend_from_slice(format!(" {app} {rest}\n").as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_app_hears_of_its_own_lines_once() {
        let line = |app: &str| format!("2026-11-21T01:44:50.123456+00:00 {app} app[web.1]: x\n");
        let mut lost = LostLines::default();
        lost.add((line("shop") + &line("blog")).as_bytes());
        lost.add(line("shop").as_bytes());
        let said = String::from_utf8(as_block(&lost.say("L10 (output buffer overflow)"))).unwrap();
        let said = said.lines().map(|line| &line[33..]).collect::<Vec<_>>();
        let is = |line: &str, app: &str, lines| {
            line.starts_with(&format!(
                "{app} heroku[logplex]: Error L10 (output buffer overflow): {lines} messages dropped since 20"
            )) && line.ends_with("+00:00.")
        };
        assert!(said.len() == 2 && is(said[0], "blog", 1) && is(said[1], "shop", 2), "{said:?}");
        assert!(lost.say("L10").is_empty());
    }
}
