//! Lines that wait for their place: what has come, by app, and out again in the order of time stamps. Pure.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::telemetry::split::{Parts, STAMP, Stamps, split};

/// Rows without a line that are kept all the same, with the memory that they had.
const IDLE_ROWS: usize = 64;

/// A line that has no place yet: the microsecond of its time stamp, and its text without the app.
pub(crate) type Waiting = (u64, Arc<[u8]>);

/// Lines that wait.
#[derive(Default)]
pub(crate) struct Sorter {
    rows: Vec<Row>,
    /// Where an app's row is.
    places: FxHashMap<Box<str>, usize>,
    lines: usize,
    bytes: usize,
    stamps: Stamps,
    text: Vec<u8>,
}

/// Those of one app.
struct Row {
    app: Box<str>,
    waiting: Vec<Waiting>,
}

impl Sorter {
    /// Takes the lines of a block.
    pub(crate) fn take(&mut self, block: &[u8]) {
        let mut place: Option<usize> = None;
        for Parts { stamp, app, rest } in split(block) {
            // The lines of an app often come one after the other.
            let at = match place {
                Some(place) if *self.rows[place].app == *app => place,
                _ => self.place(app),
            };
            place = Some(at);
            self.text.clear();
            self.text.extend_from_slice(&stamp[..STAMP]);
            self.text.push(b' ');
            self.text.extend_from_slice(rest);
            let micros = self.stamps.micros(stamp);
            self.rows[at].waiting.push((micros, self.text.as_slice().into()));
            self.lines += 1;
            self.bytes += self.text.len();
        }
    }

    fn place(&mut self, app: &str) -> usize {
        if let Some(place) = self.places.get(app) {
            return *place;
        }
        self.rows.push(Row { app: app.into(), waiting: Vec::new() });
        self.places.insert(app.into(), self.rows.len() - 1);
        self.rows.len() - 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Bytes of text that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The lines up to a microsecond, in order, by app.
    pub(crate) fn release(
        &mut self,
        until: u64,
        mut give: impl FnMut(&str, std::vec::Drain<'_, Waiting>),
    ) {
        for Row { app, waiting } in &mut self.rows {
            // Stable, and fast for rows that are in order by themselves, as those of one worker are.
            waiting.sort_by_key(|(micros, _)| *micros);
            let ready = waiting.partition_point(|(micros, _)| *micros <= until);
            if ready > 0 {
                self.lines -= ready;
                self.bytes -= waiting[..ready].iter().map(|(_, text)| text.len()).sum::<usize>();
                give(app, waiting.drain(..ready));
            }
        }
        self.forget_idle();
    }

    /// Rows in which nothing waits are looked through each time, and apps come and go.
    fn forget_idle(&mut self) {
        let idle = self.rows.iter().filter(|row| row.waiting.is_empty()).count();
        if idle > IDLE_ROWS && idle > self.rows.len() / 2 {
            self.rows.retain(|row| !row.waiting.is_empty());
            let places = self.rows.iter().enumerate().map(|(place, row)| (row.app.clone(), place));
            self.places = places.collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Stamp;

    fn line(app: usize, micros: u64, message: usize) -> Vec<u8> {
        let mut line = Vec::new();
        Stamp::default().write(&mut line, Duration::from_micros(micros));
        line.extend_from_slice(format!(" app{app} app[web.1]: {message}\n").as_bytes());
        line
    }

    proptest! {
        #[test]
        fn each_line_comes_out_once_in_the_order_of_its_app(
            blocks in prop::collection::vec(prop::collection::vec((0usize..3, 0u64..50), 0..20), 0..8),
        ) {
            let mut sorter = Sorter::default();
            let mut out: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
            let mut give = |app: &str, lines: std::vec::Drain<'_, Waiting>| {
                let of_app = out.entry(app.to_owned()).or_default();
                for (micros, text) in lines {
                    of_app.push((micros, String::from_utf8(text.to_vec()).unwrap()));
                }
            };
            let mut expected: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
            let mut message = 0;
            for block in &blocks {
                let mut bytes = Vec::new();
                for (app, micros) in block {
                    let line = line(*app, *micros, message);
                    bytes.extend_from_slice(&line);
                    let text = String::from_utf8(line).unwrap().trim_end().replace(&format!(" app{app} "), " ");
                    expected.entry(format!("app{app}")).or_default().push((*micros, text));
                    message += 1;
                }
                sorter.take(&bytes);
            }
            for until in [10, 30, 50] {
                sorter.release(until, &mut give);
            }
            prop_assert!(sorter.is_empty() && sorter.bytes() == 0);
            expected.values_mut().for_each(|lines| lines.sort_by_key(|(micros, _)| *micros));
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_is_too_young_waits() {
        let mut sorter = Sorter::default();
        sorter.take(&[line(1, 20, 0), line(1, 10, 1), line(1, 30, 2)].concat());
        let mut released = Vec::new();
        let mut release = |until| {
            sorter.release(until, |_, lines| released.extend(lines.map(|(micros, _)| micros)));
        };
        release(20);
        release(29);
        release(u64::MAX);
        assert_eq!(released, [10, 20, 30]);
    }
}
