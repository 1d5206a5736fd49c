//! Procfiles, read as strictly as Heroku's buildpacks do: a line that says nothing sensible is an error,
//! not a process type that silently never starts.

use std::collections::BTreeMap;

use crate::config::Remark;
use crate::model::ProcessType;

/// A Procfile as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procfile {
    /// The command by process type.
    pub commands: BTreeMap<ProcessType, String>,
    /// What was mended or ignored.
    pub warnings: Vec<Remark>,
}

/// Parses lines `type: command`; blank lines and lines that begin with `#` are skipped.
///
/// Upper-case letters and underscores in a type become lower-case letters and dashes, with a warning; of
/// two lines with one type the last counts, with a warning. The error is every line that is wrong.
pub fn parse(text: &str) -> Result<Procfile, Vec<Remark>> {
    let mut procfile = Procfile { commands: BTreeMap::new(), warnings: Vec::new() };
    let mut lines: BTreeMap<ProcessType, usize> = BTreeMap::new();
    let mut mistakes = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        let indent = content.chars().take_while(|c| c.is_whitespace()).count();
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let remark =
            |offset: usize, message: String| Remark { line, column: indent + offset + 1, message };
        let entry = match parse_line(content) {
            Ok(entry) => entry,
            Err((offset, message)) => {
                mistakes.push(remark(offset, message));
                continue;
            }
        };
        if entry.process_type.as_str() != entry.written {
            let message = format!("`{}` is read as `{}`", entry.written, entry.process_type);
            procfile.warnings.push(remark(0, message));
        }
        if let Some(first) = lines.insert(entry.process_type.clone(), line) {
            let message =
                format!("`{}` stands on line {first} too; this one counts", entry.process_type);
            procfile.warnings.push(remark(0, message));
        }
        procfile.commands.insert(entry.process_type, entry.command.to_owned());
    }
    if mistakes.is_empty() { Ok(procfile) } else { Err(mistakes) }
}

struct Entry<'a> {
    written: &'a str,
    process_type: ProcessType,
    command: &'a str,
}

/// The error is the character at which the line goes wrong, and how. Everything before the character is
/// ASCII, so that offsets in bytes are offsets in characters.
fn parse_line(content: &str) -> Result<Entry<'_>, (usize, String)> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let end = content.find(|c| !is_key(c)).unwrap_or(content.len());
    let (written, rest) = content.split_at(end);
    match rest.chars().next() {
        Some(found) if written.is_empty() => {
            return Err((end, format!("expected a process type like `web`, found {found:?}")));
        }
        Some(':') => {}
        Some(found) => {
            return Err((end, format!("expected `:` after `{written}`, found {found:?}")));
        }
        None => return Err((end, format!("expected `:` and a command after `{written}`"))),
    }
    let name = written.replace('_', "-").to_ascii_lowercase();
    let process_type =
        ProcessType::parse(&name).map_err(|wrong| (0, format!("`{written}`: {wrong}")))?;
    let command = rest[1..].trim();
    if command.is_empty() {
        return Err((end + 1, format!("`{written}` has no command")));
    }
    if let Some(at) = command.find('\0') {
        let before = content.len() - command.len() + at;
        return Err((
            content[..before].chars().count(),
            "a command cannot have a NUL character".into(),
        ));
    }
    Ok(Entry { written, process_type, command })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, commands: &[(&str, &str)], warnings: &[(usize, usize, &str)]) {
        let procfile = parse(text).unwrap();
        let found: Vec<_> =
            procfile.commands.iter().map(|(it, command)| (it.as_str(), &**command)).collect();
        assert_eq!(found, commands, "{text:?}");
        assert_eq!(places(&procfile.warnings), warnings, "{text:?}");
    }

    #[track_caller]
    fn check_mistakes(text: &str, mistakes: &[(usize, usize, &str)]) {
        assert_eq!(places(&parse(text).unwrap_err()), mistakes, "{text:?}");
    }

    fn places(remarks: &[Remark]) -> Vec<(usize, usize, &str)> {
        remarks.iter().map(|it| (it.line, it.column, &*it.message)).collect()
    }

    #[test]
    fn lines_are_types_and_commands() {
        check("", &[], &[]);
        check("web: rails s -p $PORT\n", &[("web", "rails s -p $PORT")], &[]);
        check(
            "# all\n\n  web:a:b \r\nworker-2:\tc # d",
            &[("web", "a:b"), ("worker-2", "c # d")],
            &[],
        );
        check("\u{feff}web: é", &[("web", "é")], &[]);
    }

    #[test]
    fn what_is_mended_is_said() {
        check("Web: a", &[("web", "a")], &[(1, 1, "`Web` is read as `web`")]);
        check(" a_b: c", &[("a-b", "c")], &[(1, 2, "`a_b` is read as `a-b`")]);
        check(
            "web: a\nweb: b",
            &[("web", "b")],
            &[(2, 1, "`web` stands on line 1 too; this one counts")],
        );
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        check_mistakes("web", &[(1, 4, "expected `:` and a command after `web`")]);
        check_mistakes("web:  ", &[(1, 5, "`web` has no command")]);
        check_mistakes(": x", &[(1, 1, "expected a process type like `web`, found ':'")]);
        check_mistakes(
            "a b: x\n\n  é: y",
            &[
                (1, 2, "expected `:` after `a`, found ' '"),
                (3, 3, "expected a process type like `web`, found 'é'"),
            ],
        );
        check_mistakes("web: é\0", &[(1, 7, "a command cannot have a NUL character")]);
        assert!(parse("-web: x").is_err() && parse("web_: x").is_err());
        assert!(parse(&format!("{}: x", "a".repeat(64))).is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            commands in proptest::collection::btree_map("[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", "[^\\s\0]([^\r\n\0]*[^\\s\0])?", 0..5),
        ) {
            let text: String = commands.iter().map(|(name, command)| format!("{name}: {command}\n")).collect();
            let expected = commands.into_iter().map(|(name, command)| (ProcessType::parse(&name).unwrap(), command));
            let expected = Procfile { commands: expected.collect(), warnings: Vec::new() };
            prop_assert_eq!(parse(&text), Ok(expected));
        }

        #[test]
        fn nothing_makes_it_panic(text in "(\\PC|[\n\r:\0 #_-])*") {
            let _ = parse(&text);
        }
    }
}
