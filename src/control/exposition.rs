//! Prometheus' text format (version 0.0.4): writing families, and merging texts that name the same ones.

use std::collections::HashMap;
use std::fmt::{Display, Write};

/// The media type of the format.
pub(in crate::control) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family that is being written.
pub(in crate::control) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    /// Begins a family of gauges.
    pub(in crate::control) fn gauge(out: &'a mut String, name: &'static str, help: &str) -> Self {
        Self::begin(out, "gauge", name, help)
    }

    /// Begins a family of counters; the name ends in `_total`.
    pub(in crate::control) fn counter(out: &'a mut String, name: &'static str, help: &str) -> Self {
        Self::begin(out, "counter", name, help)
    }

    fn begin(out: &'a mut String, kind: &str, name: &'static str, help: &str) -> Self {
        // Writing to a String does not fail; so below.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Self { out, name }
    }

    /// Writes one sample.
    pub(in crate::control) fn sample(
        &mut self,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        self.out.push_str(self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            let _ = write!(Escape(self.out), "{text}");
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// Escapes what a label's value may not hold as it is.
struct Escape<'a>(&'a mut String);

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for letter in text.chars() {
            match letter {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                letter => self.0.push(letter),
            }
        }
        Ok(())
    }
}

/// Merges texts into one in which each family appears once, with the samples of all of them: the format
/// allows one TYPE line per name, while errors are counted by the router and by the supervisor.
///
/// The first text that describes a family wins; samples keep their order.
pub(in crate::control) fn merge(texts: &[&str]) -> String {
    let mut families: Vec<Merged<'_>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut find = |families: &mut Vec<Merged<'_>>, name| {
        *known.entry(name).or_insert_with(|| {
            families.push(Merged::default());
            families.len() - 1
        })
    };
    for text in texts {
        let mut current: Option<(&str, usize)> = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((field, name)) = described(line) {
                let index = find(&mut families, name);
                current = Some((name, index));
                let described = if field == "HELP" {
                    &mut families[index].help
                } else {
                    &mut families[index].kind
                };
                described.get_or_insert(line);
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap_or(line);
                let index = match current {
                    Some((family, index)) if belongs(name, family) => index,
                    _ => find(&mut families, name),
                };
                families[index].samples.push(line);
            }
        }
    }
    let mut out = String::with_capacity(texts.iter().map(|text| text.len()).sum());
    for line in families.iter().flat_map(Merged::lines) {
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[derive(Default)]
struct Merged<'a> {
    help: Option<&'a str>,
    kind: Option<&'a str>,
    samples: Vec<&'a str>,
}

impl<'a> Merged<'a> {
    fn lines(&self) -> impl Iterator<Item = &'a str> {
        self.help.into_iter().chain(self.kind).chain(self.samples.iter().copied())
    }
}

/// `("HELP" or "TYPE", family)` of a line that describes a family.
fn described(line: &str) -> Option<(&str, &str)> {
    let mut words = line.strip_prefix("# ")?.splitn(3, ' ');
    let field = words.next().filter(|field| matches!(*field, "HELP" | "TYPE"))?;
    Some((field, words.next()?))
}

/// Whether a sample of this name is one of the family's: histograms and summaries add a suffix.
fn belongs(sample: &str, family: &str) -> bool {
    let suffix = sample.strip_prefix(family);
    suffix.is_some_and(|suffix| matches!(suffix, "" | "_bucket" | "_sum" | "_count"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn families_are_written() {
        let mut out = String::new();
        Family::gauge(&mut out, "up", "Whether.").sample(&[], 1);
        let mut family = Family::counter(&mut out, "lines_total", "Lines.");
        family.sample(&[("app", &"shop"), ("path", &"a\"b\\c\nd")], 1.5);
        assert_eq!(
            out,
            "# HELP up Whether.\n# TYPE up gauge\nup 1\n# HELP lines_total Lines.\n\
             # TYPE lines_total counter\nlines_total{app=\"shop\",path=\"a\\\"b\\\\c\\nd\"} 1.5\n"
        );
    }

    #[test]
    fn texts_are_merged() {
        let check = |texts: &[&str], expected: &str| assert_eq!(merge(texts), expected);
        check(&[], "");
        check(&["# TYPE a gauge\na 1\n\n"], "# TYPE a gauge\na 1\n");
        // One family in both: one head, all samples together.
        check(
            &[
                "# HELP e Errors.\n# TYPE e counter\ne{code=\"H10\"} 1\n# TYPE b gauge\nb 1\n",
                "# HELP e Others.\n# TYPE e counter\ne{code=\"R14\"} 2\n",
            ],
            "# HELP e Errors.\n# TYPE e counter\ne{code=\"H10\"} 1\ne{code=\"R14\"} 2\n# TYPE b gauge\nb 1\n",
        );
        // A histogram's samples stay with it; a name that only begins alike is another family.
        check(
            &[
                "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\nh_seconds 3\n",
                "h_seconds 4",
            ],
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\nh_seconds 3\nh_seconds 4\n",
        );
        // Comments say nothing.
        check(&["# made by hand\na 1"], "a 1\n");
    }

    fn text() -> impl Strategy<Value = String> {
        let sample = ("[a-d]", "[a-z]{0,3}", any::<u8>());
        proptest::collection::vec(sample, 0..20).prop_map(|samples| {
            let line = |(name, label, value): (String, String, u8)| {
                format!("# TYPE {name} gauge\n{name}{{l=\"{label}\"}} {value}\n")
            };
            samples.into_iter().map(line).collect()
        })
    }

    proptest! {
        #[test]
        fn merging_loses_nothing_and_names_each_family_once(first in text(), second in text()) {
            let merged = merge(&[&first, &second]);
            let samples = |text: &str| {
                let mut lines: Vec<_> =
                    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
                lines.sort();
                lines
            };
            prop_assert_eq!(samples(&merged), samples(&(first + &second)));
            let mut types = HashSet::new();
            let mut current = "";
            for line in merged.lines() {
                match line.strip_prefix("# TYPE ") {
                    Some(head) => {
                        current = head.split(' ').next().unwrap();
                        prop_assert!(types.insert(current));
                    }
                    None => prop_assert!(line.starts_with(current)),
                }
            }
        }
    }
}
