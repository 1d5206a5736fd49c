//! Configurations: never a panic, each thing that is wrong has a line of the file and a line of its own, and what is
//! good can be shown and differs from itself in nothing.
#![no_main]

use std::path::Path;

use dynomesh::config::{ConfigError, Source, Summary, diff};
use dynomesh::model::Stated;
use libfuzzer_sys::fuzz_target;

/// Every key in its place, which arbitrary text does not find by itself.
const EXAMPLE: &str = include_str!("../../config/example.toml");

// Nothing is there.
const FILE: &str = "/nonexistent/dynomesh.toml";

fuzz_target!(|input: (u16, &str)| {
    let (line, text) = input;
    let text = example_with(usize::from(line), text).unwrap_or_else(|| text.to_owned());
    match Source::of_text(Path::new(FILE), text.clone()).resolve(&Stated::default()) {
        Ok(config) => {
            let summary = Summary::of(&config);
            assert!(!summary.describe().is_empty());
            assert!(diff(&summary, &summary).is_empty());
            assert!(config.reload_refusals(&config).is_empty());
        }
        Err(ConfigError { problems }) => {
            assert!(!problems.is_empty());
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            for problem in problems {
                let line = problem.line.expect("a line");
                assert!(
                    problem.file != Path::new(FILE) || (1..=lines).contains(&line),
                    "{problem}"
                );
                assert!(!problem.message.is_empty() && !problem.to_string().contains('\n'));
            }
        }
    }
});

/// The example with another value in one of its lines; `None` where that line has no key.
fn example_with(line: usize, value: &str) -> Option<String> {
    let mut lines: Vec<_> = EXAMPLE.lines().map(str::to_owned).collect();
    let shown = |line: &str| line.strip_prefix('#').unwrap_or(line).to_owned();
    // Half of the numbers are beyond it.
    let line = line % (2 * lines.len());
    let (key, _) = lines.get(line)?.split_once(" = ").filter(|(key, _)| !key.contains("# "))?;
    lines[line] = format!("{} = {value}", shown(key));
    // A key's table may be one that the example only shows.
    let table = lines[..line]
        .iter_mut()
        .rfind(|line| line.starts_with(['[', '#']) && shown(line).starts_with('['));
    if let Some(table) = table {
        *table = shown(table);
    }
    Some(lines.join("\n"))
}
