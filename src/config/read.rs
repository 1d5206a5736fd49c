//! Text → the configuration as written. Turns what the TOML parser and serde object to into our own form:
//! file, line, key, and what would be right.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use crate::config::ConfigError;
use crate::config::findings::Findings;
use crate::config::limits;
use crate::config::nearest::nearest;
use crate::config::written::Written;

/// Parses the text; the error has every unknown key and every value of a wrong type.
///
/// serde stops at the first thing it objects to. That entry is noted and taken out, and the rest is read
/// again, so that a person hears of all of them at once.
pub(crate) fn read(file: &Path, text: &str) -> Result<Written, ConfigError> {
    let mut findings = Findings::new(file, text);
    let mut document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            findings.problem(start(&error), "", error.message());
            return Err(findings.error());
        }
    };
    for _ in 0..limits::WRITTEN_PROBLEMS_MAX {
        let error = match Written::deserialize(Deserializer::from(document.clone())) {
            Ok(written) => return findings.verdict().map(|_| written),
            Err(error) => error,
        };
        let path =
            error.span().and_then(|span| path_to(document.get_ref(), &span)).unwrap_or_default();
        let keys = keys(&path);
        findings.problem(start(&error), keys.join("."), explain(&keys, error.message()));
        if !remove(document.get_mut(), &path) {
            break;
        }
    }
    Err(findings.error())
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

/// A step down from a table or an array.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    /// Not shown: the line says which entry it is.
    Index(usize),
}

impl Step {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Index(_) => None,
        }
    }
}

/// The steps that lead to the entry whose key or value stands at `span`.
fn path_to(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    table.iter().find_map(|(key, value)| {
        let path = match path_into(value, span) {
            Some(path) => path,
            None if key.span() == *span => Vec::new(),
            None => return None,
        };
        Some([vec![Step::Key(key.get_ref().to_string())], path].concat())
    })
}

/// The steps from a value to what stands at `span`, none where that is the value or an item of it.
fn path_into(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => path_to(table, span),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            let DeValue::Table(table) = item.get_ref() else { return None };
            Some([vec![Step::Index(index)], path_to(table, span)?].concat())
        }),
        _ => None,
    };
    let here = match value.get_ref() {
        DeValue::Table(_) => value.span() == *span,
        _ => value.span().start <= span.start && span.end <= value.span().end,
    };
    inner.or_else(|| here.then(Vec::new))
}

/// The keys of a path.
fn keys(path: &[Step]) -> Vec<&str> {
    path.iter().filter_map(Step::key).collect()
}

/// Takes an entry out; `false` where there is none.
fn remove(table: &mut DeTable<'_>, path: &[Step]) -> bool {
    match path {
        [Step::Key(key)] => table.remove(key.as_str()).is_some(),
        [Step::Key(key), rest @ ..] => {
            table.get_mut(key.as_str()).is_some_and(|value| remove_from(value.get_mut(), rest))
        }
        _ => false,
    }
}

fn remove_from(value: &mut DeValue<'_>, path: &[Step]) -> bool {
    match (value, path) {
        (DeValue::Table(table), path) => remove(table, path),
        (DeValue::Array(items), [Step::Index(index), rest @ ..]) => {
            items.get_mut(*index).is_some_and(|item| remove_from(item.get_mut(), rest))
        }
        _ => false,
    }
}

/// Says in our words what serde objects to.
fn explain(path: &[&str], message: &str) -> String {
    if let Some((key, known)) = unknown_field(message) {
        return match elsewhere(path) {
            Some(reason) => reason.to_owned(),
            None => match nearest(key, known.iter().copied()) {
                Some(meant) => format!("unknown key; did you mean {meant}?"),
                None => format!("unknown key; known here: {}", known.join(", ")),
            },
        };
    }
    let message = in_words(message);
    match (path, message.split_once(", expected ")) {
        // Config vars are secrets: what was found is not repeated.
        (["apps", _, "config", ..], Some((_, expected))) => format!("expected {expected}"),
        (["certs"], Some((found, "an array"))) => format!("{found}, expected an array: [[certs]]"),
        (["apps", _, "config", ..], None) => "cannot be read".into(),
        _ => message,
    }
}

/// Takes serde's message apart: the key that it does not know, and those that it does.
pub(crate) fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (key, expected) = message.strip_prefix("unknown field `")?.split_once("`, expected ")?;
    Some((key, expected.split('`').skip(1).step_by(2).collect()))
}

/// Why a key that exists is not known here: another table has it.
fn elsewhere(path: &[&str]) -> Option<&'static str> {
    Some(match path {
        ["apps", _, "timeouts", "handshake" | "head" | "keepalive" | "stop"] => {
            "is not an app's: set it in [router.timeouts]"
        }
        ["router", "timeouts", "boot" | "exit" | "cool_off" | "cool_off_max"] => {
            "is an app's: set it in [apps.NAME.timeouts]"
        }
        _ => return None,
    })
}

/// Puts TOML's words where serde has Rust's.
fn in_words(message: &str) -> String {
    let mut message = message.to_owned();
    for (rust, toml) in [
        ("a sequence", "an array"),
        ("sequence", "an array"),
        ("a map", "a table"),
        ("map", "a table"),
        ("a boolean", "true or false"),
        ("u32", "a whole number"),
        ("usize", "a whole number"),
    ] {
        if let Some(rest) = message.strip_suffix(&format!("expected {rust}")) {
            message = format!("{rest}expected {toml}");
        }
        if let Some(rest) = message.strip_prefix(&format!("invalid type: {rust}, ")) {
            message = format!("invalid type: {toml}, {rest}");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let problems =
            read(Path::new("f"), text).map_or_else(|error| error.problems, |_| Vec::new());
        assert_eq!(
            problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            expected,
            "{text}"
        );
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest_known_one() {
        check("[router]\nhtp = []\n", &["f:2: router.htp: unknown key; did you mean http?"]);
        check(
            "[apps.shop]\n\n[apps.shop.timeouts]\nholds = 1",
            &["f:4: apps.shop.timeouts.holds: unknown key; did you mean hold?"],
        );
        check("[state]\ncolour = 1", &["f:2: state.colour: unknown key; known here: dir"]);
        check("admin.sockte = 1", &["f:1: admin.sockte: unknown key; did you mean socket?"]);
    }

    #[test]
    fn all_are_reported_at_once() {
        check(
            "nonsense = 1\n[router]\nhttp = 3\nworkers = \"two\"\n[apps.shop]\nmaintenance = 1\n",
            &[
                "f:1: nonsense: unknown key; known here: router, admin, state, dynos, logs, certs, acme, sizes, apps",
                "f:3: router.http: invalid type: integer `3`, expected an array",
                "f:4: router.workers: invalid type: string \"two\", expected a whole number",
                "f:6: apps.shop.maintenance: invalid type: integer `1`, expected true or false",
            ],
        );
    }

    #[test]
    fn wrong_types_say_what_would_be_right() {
        check(
            "[router.timeouts]\nhead = 30",
            &[
                "f:2: router.timeouts.head: invalid type: integer `30`, expected a duration like \"30s\", \"500ms\", \"1h30m\" or \"30d\"",
            ],
        );
        check(
            "[router]\nhttp = [\n  \"a\",\n  1,\n]",
            &["f:4: router.http: invalid type: integer `1`, expected a string"],
        );
        check(
            "[apps.a]\nformation = { web = -1 }",
            &["f:2: apps.a.formation.web: invalid value: integer `-1`, expected a whole number"],
        );
        check("apps = 1", &["f:1: apps: invalid type: integer `1`, expected a table"]);
        check("[[router]]", &["f:1: router: invalid type: an array, expected a table"]);
        check(
            "state = [\"x\"]\napps.a = [\"b\"]",
            &[
                "f:1: state: invalid type: an array, expected a table",
                "f:2: apps.a: invalid type: an array, expected a table",
            ],
        );
    }

    #[test]
    fn what_is_elsewhere_is_said() {
        check(
            "[apps.a.timeouts]\nstop = \"1s\"\nhandshake = \"1s\"",
            &[
                "f:2: apps.a.timeouts.stop: is not an app's: set it in [router.timeouts]",
                "f:3: apps.a.timeouts.handshake: is not an app's: set it in [router.timeouts]",
            ],
        );
    }

    #[test]
    fn entries_of_an_array_are_told_apart_by_their_lines() {
        check(
            "[[certs]]\ncrt = \"a\"\ndir = 1\n[[certs]]\nkeys = \"b\"\n",
            &[
                "f:2: certs.crt: unknown key; did you mean cert?",
                "f:3: certs.dir: invalid type: integer `1`, expected a string",
                "f:5: certs.keys: unknown key; did you mean key?",
            ],
        );
        check(
            "certs = [1, { dir = \"a\" }, \"b\"]\n[router]\nhttp = [{ a = 1 }]",
            &[
                "f:1: certs: invalid type: integer `1`, expected a table",
                "f:3: router.http: invalid type: a table, expected a string",
            ],
        );
        check(
            "[certs]\ndir = \"a\"",
            &["f:1: certs: invalid type: a table, expected an array: [[certs]]"],
        );
        check("[[acme]]", &["f:1: acme: invalid type: an array, expected a table"]);
    }

    #[test]
    fn syntax_errors_have_a_line() {
        check("[router]\n\nhttp = [", &["f:3: unclosed array, expected `]`"]);
        check("[router]\n[router]", &["f:2: duplicate key"]);
    }

    #[test]
    fn config_vars_are_never_repeated() {
        let text = "[apps.a]\nconfig = \"hunter2\"\n[apps.b.config]\nA = 77712\nB = { c = \"hunter2\" }\nD = 99999999999999999999999999999999999999999\n";
        let said = read(Path::new("f"), text).err().unwrap().to_string();
        assert_eq!(said.lines().count(), 4, "{said}");
        assert!(
            !said.contains("hunter2") && !said.contains("777") && !said.contains("999"),
            "{said}"
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(\\[?\\[(apps|router|apps\\.a\\.config|\\PC{0,3})\\]|(http|timeouts\\.hold|a|dir) *= *|[\\[\\]{}=\"'\\n,.1é])*") {
            if let Err(error) = read(Path::new("f"), &text) {
                prop_assert!(!error.problems.is_empty());
                let lines = text.lines().count().max(1);
                prop_assert!(error.problems.iter().all(|it| it.line.is_some_and(|line| line <= lines + 1)));
            }
        }
    }
}
