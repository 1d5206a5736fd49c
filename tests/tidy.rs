//! Checks the shape of the source: which file may import which, and a few manners that no lint knows.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The floors of the house, bottom first. A module imports only what its row names; `src/lib.rs` shows the
/// same as a list. Router and supervisor stand on one floor and never meet.
#[rustfmt::skip]
const FLOORS: &[(u8, &str, &[&str])] = &[
    (0, "model",      &[]),
    (0, "shutdown",   &[]),
    (0, "private_file", &[]),
    (0, "wall_clock", &[]),
    (0, "random",     &[]),
    (0, "hexadecimal", &[]),
    (0, "back_off",   &[]),
    (1, "config",     &["model"]),
    (1, "table",      &["model", "config"]),
    (1, "telemetry",  &["model", "wall_clock", "config"]),
    (1, "wire",       &["model", "config"]),
    (1, "outside",    &["config"]),
    (2, "drains",     &["model", "random", "back_off", "wall_clock", "shutdown", "config", "telemetry", "outside"]),
    (2, "certs",      &["model", "random", "hexadecimal", "back_off", "private_file", "shutdown", "config", "table", "telemetry", "wire", "outside"]),
    (2, "store",      &["model", "random", "hexadecimal", "private_file", "config"]),
    (2, "slugs",      &["model", "random", "hexadecimal", "private_file", "config"]),
    (2, "init",       &["model", "wall_clock", "shutdown", "config", "table", "telemetry", "wire"]),
    (2, "hello",      &["model", "shutdown", "config", "table", "telemetry", "wire"]),
    (3, "router",     &["model", "wall_clock", "shutdown", "config", "table", "telemetry", "wire", "certs"]),
    (3, "supervisor", &["model", "random", "hexadecimal", "back_off", "wall_clock", "private_file", "shutdown", "config", "table", "telemetry", "wire", "init"]),
    (4, "scheduler",  &["model", "config", "telemetry", "store", "supervisor"]),
    (4, "control",    &["model", "random", "hexadecimal", "wall_clock", "private_file", "shutdown", "config", "table", "telemetry", "certs", "drains", "store", "slugs", "router", "supervisor"]),
    (5, "daemon",     &["model", "random", "wall_clock", "private_file", "shutdown", "config", "table", "telemetry", "certs", "drains", "store", "slugs", "init", "router", "supervisor", "scheduler", "control"]),
    (6, "cli",        &["model", "random", "hexadecimal", "wall_clock", "private_file", "shutdown", "config", "table", "telemetry", "certs", "store", "slugs", "init", "hello", "control", "daemon"]),
];

/// On floor 1 only `config` may be imported by its neighbours: the limits are there.
const SHARED_WITH_NEIGHBOURS: &str = "config";

/// Longer files are two files. Tests at the bottom do not count.
const LINES_MAX: usize = 700;

/// What stays out of every file, and where it may stand all the same.
const UNWANTED: &[(&str, &[&str])] = &[
    ("FIXME", &[]),
    ("TODO", &[]),
    ("todo!(", &[]),
    ("unimplemented!(", &[]),
    ("dbg!(", &[]),
    ("#[allow(", &[]),
    ("#[ignore", &[]),
    ("println!(", &["cli", "hello"]),
];

#[test]
fn floors_only_look_down() {
    for (floor, module, imports) in FLOORS {
        for import in *imports {
            let (below, _, _) = FLOORS.iter().find(|(_, name, _)| name == import).expect(import);
            let neighbour = floor == below && *import == SHARED_WITH_NEIGHBOURS;
            assert!(below < floor || neighbour, "FLOORS: {import} is not below {module}");
        }
    }
}

#[test]
fn modules_import_only_what_their_floor_allows() {
    let files = Files::read();
    for (module, imports) in files.imports() {
        let floor = top(&module);
        if ["lib", "main"].contains(&floor) {
            continue;
        }
        let row = FLOORS.iter().find(|(_, name, _)| *name == floor);
        let (_, _, allowed) = row.unwrap_or_else(|| panic!("{floor} has no row in FLOORS"));
        for import in imports.iter().map(|import| top(import)) {
            let fine = import == floor || allowed.contains(&import);
            assert!(fine, "src/{module} imports {import}, and {floor} may only import {allowed:?}");
        }
    }
}

#[test]
fn files_import_in_no_circle() {
    let files = Files::read();
    let imports = files.imports();
    let mut done = BTreeSet::new();
    for module in imports.keys() {
        let mut path = vec![module.clone()];
        let circle = circle(&mut path, &imports, &mut done);
        assert!(!circle, "files import each other in a circle: {}", path.join(" > "));
    }
}

#[test]
fn files_say_what_they_are_for_and_fit_a_reader() {
    for (path, text) in &Files::read().0 {
        assert!(text.starts_with("//! "), "src/{path} does not begin with //!");
        let lines = without_tests(text).lines().count();
        assert!(lines <= LINES_MAX, "src/{path} has {lines} lines, more than {LINES_MAX}");
    }
}

#[test]
fn nothing_unwanted_is_left_in_a_file() {
    for (path, text) in &Files::read().0 {
        let code = without_tests(text);
        assert!(
            !code.contains("super::"),
            "src/{path}: write crate::…, so that every import says its floor"
        );
        for (unwanted, allowed_in) in UNWANTED {
            let found = code.lines().position(|line| line.contains(unwanted));
            let allowed = allowed_in.contains(&top(&module_of(path)));
            if let (Some(line), false) = (found, allowed) {
                panic!("src/{path}:{}: no {unwanted} here", line + 1);
            }
        }
    }
}

// ---- reading the source -----------------------------------------------------------------------------------

/// Path below `src/` and text of every file.
struct Files(Vec<(String, String)>);

impl Files {
    fn read() -> Self {
        let mut files = Vec::new();
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut dirs = vec![src.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|it| it == "rs") {
                    let below = path.strip_prefix(&src).unwrap().to_str().unwrap().to_string();
                    files.push((below, fs::read_to_string(&path).unwrap()));
                }
            }
        }
        assert!(files.len() > 20, "src/ was not found");
        let only_for_tests = files.iter().flat_map(|(path, text)| modules_for_tests(path, text));
        let only_for_tests = only_for_tests.collect::<BTreeSet<_>>();
        files.retain(|(path, _)| !only_for_tests.contains(&module_of(path)));
        files.sort();
        Self(files)
    }

    /// For each module (`router::pick`) the other modules that it names.
    fn imports(&self) -> BTreeMap<String, BTreeSet<String>> {
        let modules = self.0.iter().map(|(path, _)| module_of(path)).collect::<BTreeSet<_>>();
        let imports = |path: &str, text: &str| {
            let module = module_of(path);
            let named = named_paths(&without_comments(without_tests(text)));
            let named = named.iter().filter_map(|it| module_named(it, &modules));
            let named = named.filter(|it| *it != module);
            // A table of contents re-exports its files, and they name each other through it: no circle.
            let named = named.filter(|it| !it.starts_with(&format!("{module}::"))).collect();
            (module, named)
        };
        self.0.iter().map(|(path, text)| imports(path, text)).collect()
    }
}

/// `router/pick.rs` is `router::pick`, `router/mod.rs` is `router`.
fn module_of(path: &str) -> String {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// Tests stand at the bottom of a file and may use anything.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// Modules with files of their own that a file declares for tests.
fn modules_for_tests(path: &str, text: &str) -> Vec<String> {
    let module = module_of(path);
    let declared = text.split("#[cfg(test)]\nmod ").skip(1).filter_map(|rest| {
        let name = rest.split([';', ' ']).next()?;
        rest[name.len()..].starts_with(';').then_some(name)
    });
    declared.map(|name| format!("{module}::{name}")).collect()
}

fn without_comments(code: &str) -> String {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Every path that begins with `crate::`, braces opened up: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn named_paths(code: &str) -> Vec<String> {
    code.split("crate::").skip(1).flat_map(|rest| opened(rest).0).collect()
}

/// The paths at the front of `text`, and how many bytes they take.
fn opened(text: &str) -> (Vec<String>, usize) {
    let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    let length = text.find(|c| !in_path(c)).unwrap_or(text.len());
    let (prefix, rest) = text.split_at(length);
    if !rest.starts_with('{') {
        return (vec![prefix.to_string()], length);
    }
    let mut paths = Vec::new();
    let mut at = 1;
    while at < rest.len() {
        match rest.as_bytes()[at] {
            b'}' => break,
            byte if byte == b',' || byte.is_ascii_whitespace() => at += 1,
            _ => {
                let (inner, taken) = opened(&rest[at..]);
                paths.extend(inner.into_iter().map(|path| format!("{prefix}{path}")));
                at += taken.max(1);
            }
        }
    }
    (paths, length + at + 1)
}

/// `router::pick::Pick` names the module `router::pick`.
fn module_named(path: &str, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path.trim_end_matches(':');
    loop {
        if modules.contains(path) {
            return Some(path.to_string());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// Walks on from the end of `path`; `true` with the circle in `path` where there is one.
fn circle(
    path: &mut Vec<String>,
    imports: &BTreeMap<String, BTreeSet<String>>,
    done: &mut BTreeSet<String>,
) -> bool {
    let Some(module) = path.last().cloned() else { return false };
    for import in imports.get(&module).into_iter().flatten() {
        let known = path.contains(import);
        if done.contains(import) {
            continue;
        }
        path.push(import.clone());
        if known || circle(path, imports, done) {
            return true;
        }
        path.pop();
    }
    done.insert(module);
    false
}

#[test]
fn paths_are_opened_up() {
    let code =
        "use crate::table::{App, dyno::{Dyno, Lease}, Roster};\nlet it = crate::wire::Head::new();";
    let expected = [
        "table::App",
        "table::dyno::Dyno",
        "table::dyno::Lease",
        "table::Roster",
        "wire::Head::new",
    ];
    assert_eq!(named_paths(code), expected);
}

#[test]
fn circles_are_found() {
    let imports = [("a", "b"), ("b", "c"), ("c", "b")];
    let imports = imports.map(|(from, to)| (from.to_string(), BTreeSet::from([to.to_string()])));
    let mut path = vec!["a".to_string()];
    assert!(circle(&mut path, &BTreeMap::from(imports), &mut BTreeSet::new()));
    assert_eq!(path, ["a", "b", "c", "b"]);
}
