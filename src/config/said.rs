//! What the file itself says of an app, and on which line: commands must not change it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use crate::config::findings::{COMMAND, Findings};
use crate::config::written::App;
use crate::config::{env_file, text_file};

/// The keys of an app that the file says, with their lines: `maintenance`, `formation.web`, `config.RACK_ENV`, and
/// `app` where it says that there is the app. A variable of its `env_file` has the line of that key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(BTreeMap<String, usize>);

impl Said {
    /// The line of a key, from 1.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.0.get(key).copied()
    }
}

/// What is said of an app whose name stands at `at`.
pub(crate) fn said(findings: &Findings<'_>, at: usize, app: &App) -> Said {
    let mut said = BTreeMap::new();
    let mut say = |key: String, at: usize| said.insert(key, findings.line(at));
    if at != COMMAND {
        say("app".into(), at);
    }
    let spans = [
        ("dir", span(&app.dir)),
        ("dynos", span(&app.dynos)),
        ("size", span(&app.size)),
        ("maintenance", span(&app.maintenance)),
    ];
    for (key, span) in spans {
        span.map(|span| say(key.into(), span.start));
    }
    for item in app.domains.iter().flat_map(|it| it.get_ref()) {
        say(format!("domains.{}", item.get_ref().to_ascii_lowercase()), item.span().start);
    }
    for (name, _) in app.formation.iter().flat_map(|it| it.get_ref()) {
        say(format!("formation.{}", name.get_ref()), name.span().start);
    }
    for (name, _) in app.sizes.iter().flat_map(|it| it.get_ref()) {
        say(format!("sizes.{}", name.get_ref()), name.span().start);
    }
    if let Some(written) = &app.env_file
        // That it cannot be read is said where its variables are wanted.
        && let Ok(text) = text_file::read(&findings.path(written.get_ref()))
    {
        for name in env_file::parse(&text).vars.into_keys() {
            say(format!("config.{name}"), written.span().start);
        }
    }
    for (name, _) in app.config.iter().flat_map(|it| it.get_ref()) {
        say(format!("config.{}", name.get_ref()), name.span().start);
    }
    Said(said)
}

fn span<T>(written: &Option<Spanned<T>>) -> Option<Range<usize>> {
    written.as_ref().map(Spanned::span)
}
