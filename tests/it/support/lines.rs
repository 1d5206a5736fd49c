//! Log lines, parsed: `TIMESTAMP APP SOURCE[PROCESS]: MESSAGE`.

/// One line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// As printed.
    pub(crate) text: String,
    pub(crate) stamp: String,
    /// `-` where there is no app.
    pub(crate) app: String,
    /// `heroku[router]`
    pub(crate) source: String,
    pub(crate) message: String,
}

/// A line of the router about a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The line it was parsed from.
    pub(crate) line: Line,
    /// Keys and values in their order, quotes removed.
    pub(crate) pairs: Vec<(String, String)>,
}

impl Line {
    /// Parses a line; `None` where it is none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let (stamp, app, source) = (words.next()?, words.next()?, words.next()?);
        let source = source.strip_suffix(':')?;
        let message = words.next().unwrap_or("").to_string();
        let [stamp, app, source] = [stamp, app, source].map(str::to_string);
        Some(Self { text: text.into(), stamp, app, source, message })
    }

    /// Whether the line is about this process and says this.
    pub(crate) fn says(&self, source: &str, message: &str) -> bool {
        self.source == source && self.message.contains(message)
    }

    /// The line as one about a request; `None` where it is not.
    pub(crate) fn request(&self) -> Option<Request> {
        if self.source != "heroku[router]" {
            return None;
        }
        Some(Request { line: self.clone(), pairs: pairs(&self.message) })
    }
}

impl Request {
    /// The value of a key; panics where the key is missing.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or_else(|| panic!("no {key}= in {}", self.line.text))
    }

    /// The value of a key.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(it, _)| it == key).map(|(_, value)| value.as_str())
    }

    /// The keys in their order.
    pub(crate) fn keys(&self) -> Vec<&str> {
        self.pairs.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// The milliseconds of `connect=`, `service=` or `late=`.
    #[track_caller]
    pub(crate) fn millis(&self, key: &str) -> u64 {
        let text = self.get(key);
        let number = text.strip_suffix("ms").and_then(|it| it.parse().ok());
        number.unwrap_or_else(|| panic!("{key}={text} is not in milliseconds: {}", self.line.text))
    }

    /// Asserts keys and values, `key=value` each.
    #[track_caller]
    pub(crate) fn has(&self, expected: &[&str]) {
        for pair in expected {
            let (key, value) = pair.split_once('=').expect("key=value");
            assert_eq!(self.get(key), value, "{key} in {}", self.line.text);
        }
    }
}

/// Splits logfmt: `key=value` and `key="value"`, where a quote or backslash in quotes is escaped.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = value(after);
        found.push((key.trim_start().to_string(), value));
        rest = after;
    }
    assert!(rest.trim().is_empty(), "what is {rest:?} in {text:?}?");
    found
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return (text[..end].to_string(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => {
                let (_, escaped) = chars.next().expect("something after a backslash");
                // \xNN stays as it is: it stands for a byte that is not text.
                value.extend((escaped == 'x').then_some('\\'));
                value.push(escaped);
            }
            _ => value.push(c),
        }
    }
    panic!("a quote without end in {text:?}");
}

#[test]
fn router_lines_are_taken_apart() {
    let text = r#"2026-11-21T01:44:50.123456+00:00 shop heroku[router]: at=error desc="a \"b\" c" dyno= status=503"#;
    let request = Line::parse(text).unwrap().request().unwrap();
    assert_eq!(request.keys(), ["at", "desc", "dyno", "status"]);
    request.has(&["at=error", "desc=a \"b\" c", "dyno=", "status=503"]);
}
