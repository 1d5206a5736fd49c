//! `.env` files, as foreman reads them: `NAME=value` per line, everything else ignored.
//!
//! Two deviations: `export NAME=value` is taken too, as forego does, and `\\n` in double quotes is a
//! backslash and an n. What is ignored is said, so that a misspelt line is not a riddle.
//! Invariant: no value of a variable gets into a warning.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::Remark;
use crate::config::config_var::{self, Redacted};

/// An environment file as read. Its `Debug` shows no values.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// By name.
    pub vars: BTreeMap<String, String>,
    /// What was ignored.
    pub warnings: Vec<Remark>,
}

impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvFile")
            .field("vars", &Redacted(&self.vars))
            .field("warnings", &self.warnings)
            .finish()
    }
}

/// Parses an environment file. Of two lines with one name the last counts.
///
/// A value in single quotes is taken as it stands; in double quotes `\n` is a newline, and a backslash
/// before any other character is dropped; without quotes it is the rest of the line, blanks included.
pub fn parse(text: &str) -> EnvFile {
    let mut file = EnvFile { vars: BTreeMap::new(), warnings: Vec::new() };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, content) in text.lines().enumerate() {
        if content.trim().is_empty() || content.trim_start().starts_with('#') {
            continue;
        }
        match parse_line(content) {
            Ok((name, value)) => {
                file.vars.insert(name.to_owned(), value);
            }
            Err(message) => {
                file.warnings.push(Remark {
                    line: index + 1,
                    column: 1,
                    message: format!("{message}; ignored"),
                });
            }
        }
    }
    file
}

fn parse_line(content: &str) -> Result<(&str, String), &'static str> {
    let assignment = content.strip_prefix("export ").map_or(content, str::trim_start);
    let (name, value) = assignment.split_once('=').ok_or("expected NAME=value")?;
    config_var::check_name(name)?;
    config_var::check_value(value)?;
    Ok((name, unquote(value)))
}

fn unquote(value: &str) -> String {
    let within = |quote| value.strip_prefix(quote).and_then(|it: &str| it.strip_suffix(quote));
    if let Some(literal) = within('\'') {
        return literal.to_owned();
    }
    let Some(escaped) = within('"') else { return value.to_owned() };
    let mut plain = String::with_capacity(escaped.len());
    let mut characters = escaped.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, vars: &[(&str, &str)], warned_lines: &[usize]) {
        let file = parse(text);
        let found: Vec<_> = file.vars.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, vars, "{text:?}");
        assert_eq!(
            file.warnings.iter().map(|it| it.line).collect::<Vec<_>>(),
            warned_lines,
            "{text:?}"
        );
    }

    #[test]
    fn values_are_unquoted() {
        check("A=1\r\nB= x \n", &[("A", "1"), ("B", " x ")], &[]);
        check(r#"A='a\n"b'"#, &[("A", r#"a\n"b"#)], &[]);
        check(r#"A="a\n\"b\"\\n\x""#, &[("A", "a\n\"b\"\\nx")], &[]);
        check("A=\nB='\nC=\"\nD=a#b", &[("A", ""), ("B", "'"), ("C", "\""), ("D", "a#b")], &[]);
        check("A=a=b\nA=c", &[("A", "c")], &[]);
        check("export A=1\nexport  B='2'", &[("A", "1"), ("B", "2")], &[]);
    }

    #[test]
    fn what_is_ignored_is_said() {
        check("# c\n\n  # d\nA = 1\nB\n1A=2\nPORT=5000\nC=\0", &[], &[4, 5, 6, 7, 8]);
        let said = format!("{:?}", parse("TOKEN hunter2\nA-B=hunter2\nC=hunter2"));
        assert!(!said.contains("hunter2"), "{said}");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            vars in proptest::collection::btree_map("[A-Z_]{3}[A-Za-z0-9_]{2,5}", "[^\r\0]*", 0..5),
        ) {
            let escape = |value: &String| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let text: String = vars.iter().map(|(name, value)| format!("{name}=\"{}\"\n", escape(value))).collect();
            prop_assert_eq!(parse(&text).vars, vars);
        }

        #[test]
        fn nothing_makes_it_panic(text in "(\\PC|[\n\r=\0'\"\\\\])*") {
            parse(&text);
        }
    }
}
