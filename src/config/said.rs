//! What the file itself says of an app, and on which line: commands must not change it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use crate::config::config_var::fingerprint;
use crate::config::findings::{COMMAND, Findings};
use crate::config::written::App;

/// The keys of an app that the file says, with their lines: `maintenance`, `formation.web`, `config.RACK_ENV`, and
/// `app` where it says that there is the app. A variable of its `env_file` has the line of that key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(BTreeMap<String, usize>);

impl Said {
    /// The line of a key, from 1.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.0.get(key).copied()
    }

    /// Notes that its `env_file`, which is named at this line, has a variable. What the file says of it itself goes first.
    pub(crate) fn also(&mut self, var: &str, line: usize) {
        self.0.entry(format!("config.{var}")).or_insert(line);
    }
}

/// By what a drain is known here: what is secret in its URL is not.
pub fn drain_key(url: &str) -> String {
    format!("drains.{:016x}", fingerprint(url))
}

/// What is said of an app whose name stands at `at`, but for the variables of its `env_file`.
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
        ("deploy", span(&app.deploy)),
        ("affinity", span(&app.affinity)),
    ];
    for (key, span) in spans {
        span.map(|span| say(key.into(), span.start));
    }
    for item in app.domains.iter().flat_map(|it| it.get_ref()) {
        say(format!("domains.{}", item.get_ref().to_ascii_lowercase()), item.span().start);
    }
    for item in app.drains.iter().flat_map(|it| it.get_ref()) {
        say(drain_key(item.get_ref()), item.span().start);
    }
    // Beside the rules, a word about the number would have no effect.
    for (name, _) in app.autoscale.iter().flat_map(|it| it.get_ref()) {
        say(format!("formation.{}", name.get_ref()), name.span().start);
    }
    for (name, _) in app.formation.iter().flat_map(|it| it.get_ref()) {
        say(format!("formation.{}", name.get_ref()), name.span().start);
    }
    for (name, _) in app.sizes.iter().flat_map(|it| it.get_ref()) {
        say(format!("sizes.{}", name.get_ref()), name.span().start);
    }
    for (name, _) in app.config.iter().flat_map(|it| it.get_ref()) {
        say(format!("config.{}", name.get_ref()), name.span().start);
    }
    Said(said)
}

fn span<T>(written: &Option<Spanned<T>>) -> Option<Range<usize>> {
    written.as_ref().map(Spanned::span)
}

#[cfg(test)]
mod tests {
    use crate::config::fixture::Fixture;

    #[test]
    fn variables_of_an_env_file_have_its_line_and_those_of_the_file_their_own() {
        let config = "[apps.shop]\ndir = \"shop\"\nenv_file = \"shop/.env\"\n[apps.shop.config]\nB = \"file\"\n";
        let files = [("shop/Procfile", "web: serve\n"), ("shop/.env", "A=env\nB=env\n")];
        let config = Fixture::new(config, &files).loaded();
        let said = &config.apps.values().next().unwrap().said;
        let lines = ["app", "dir", "config.A", "config.B", "config.C"].map(|key| said.line(key));
        assert_eq!(lines, [Some(1), Some(2), Some(3), Some(5), None]);
    }
}
