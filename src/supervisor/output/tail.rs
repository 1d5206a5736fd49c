//! The last lines that a dyno printed, bounded, for whoever wants to know why it did not come up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::limits;

/// Shared by who prints and who asks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tail(Arc<Mutex<Option<VecDeque<String>>>>);

impl Default for Tail {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(VecDeque::new()))))
    }
}

impl Tail {
    /// Keeps the last of these, unless they are to be forgotten.
    pub(crate) fn keep(&self, lines: &[Vec<u8>]) {
        let mut kept = self.kept();
        let Some(kept) = &mut *kept else { return };
        for line in &lines[lines.len().saturating_sub(limits::FAILURE_LINES)..] {
            if kept.len() == limits::FAILURE_LINES {
                kept.pop_front();
            }
            let line = &line[..line.len().min(limits::FAILURE_LINE_MAX)];
            kept.push_back(String::from_utf8_lossy(line).into_owned());
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.kept().iter().flatten().cloned().collect()
    }

    /// Keeps none from here on.
    pub(crate) fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<VecDeque<String>>> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_until_they_are_forgotten() {
        let tail = Tail::default();
        let lines = |numbers: std::ops::Range<usize>| {
            numbers.map(|number| number.to_string().into_bytes()).collect::<Vec<_>>()
        };
        tail.keep(&lines(0..3));
        assert_eq!(tail.lines(), ["0", "1", "2"]);
        tail.keep(&lines(3..100));
        tail.keep(&[vec![b'x'; 5000]]);
        let kept = tail.lines();
        assert_eq!((kept.len(), kept[0].as_str()), (limits::FAILURE_LINES, "81"));
        assert_eq!(kept.last().unwrap().len(), limits::FAILURE_LINE_MAX);
        tail.forget();
        tail.keep(&lines(0..3));
        assert!(tail.lines().is_empty());
    }
}
