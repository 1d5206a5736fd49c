//! `config/example.toml` has every key that is read, and shows the defaults that hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::config::fixture::Fixture;
use crate::config::read::unknown_field;
use crate::config::written::Written;
use crate::config::{AppConfig, Config, Said};
use crate::model::AppName;

/// Stands for the names that people choose: `apps.NAME.dir`.
const NAME: &str = "NAME";
/// Tables of tables by such names.
const KEYED: [&str; 3] = ["apps", "sizes", "apps.NAME.autoscale"];
/// Ends the key of an array of tables.
const ARRAY: &str = "[]";

/// Every key that the structs of `written.rs` read, found out by offering each table a key that none has:
/// serde answers with those it does have.
fn keys_read() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    collect_keys(&mut Vec::new(), &mut keys);
    keys
}

fn collect_keys(path: &mut Vec<String>, keys: &mut BTreeSet<String>) {
    let mut document = toml::Value::Integer(1);
    for key in path.iter().chain([&"?".to_owned()]).rev() {
        let (key, value) = match key.strip_suffix(ARRAY) {
            Some(key) => (key, toml::Value::Array(vec![document])),
            None => (key.as_str(), document),
        };
        document = toml::Value::Table([(key.to_owned(), value)].into_iter().collect());
    }
    let text = toml::to_string(&document).unwrap();
    let Err(error) = toml::from_str::<Written>(&text) else { return };
    if let Some((_, known)) = unknown_field(error.message()) {
        for key in known {
            path.push(key.to_owned());
            keys.insert(path.join(".").replace(ARRAY, ""));
            collect_keys(path, keys);
            path.pop();
        }
    } else if let Some(array) =
        path.pop_if(|key| error.message().ends_with("expected a sequence") && !key.ends_with(ARRAY))
    {
        path.push(array.clone() + ARRAY);
        collect_keys(path, keys);
        path.pop();
        path.push(array);
    } else if &text[error.span().unwrap()] == "1" && path.last().is_none_or(|key| key != NAME) {
        // The table takes any key, and wants something other than a number there.
        path.push(NAME.to_owned());
        collect_keys(path, keys);
        path.pop();
    }
}

/// The keys of a text, with the names that people choose replaced.
fn keys_written(text: &str) -> BTreeSet<String> {
    fn collect(prefix: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = match prefix {
                "" => key.clone(),
                prefix if KEYED.contains(&prefix) => format!("{prefix}.{NAME}"),
                _ => format!("{prefix}.{key}"),
            };
            if !KEYED.contains(&prefix) {
                keys.insert(path.clone());
            }
            let chosen = ["apps.NAME.config", "apps.NAME.formation", "apps.NAME.sizes"];
            let entries = match value {
                toml::Value::Array(entries) => entries.as_slice(),
                value => std::slice::from_ref(value),
            };
            for inner in entries.iter().filter_map(toml::Value::as_table) {
                if !chosen.contains(&&*path) {
                    collect(&path, inner, keys);
                }
            }
        }
    }
    let mut keys = BTreeSet::new();
    collect("", &text.parse().unwrap(), &mut keys);
    keys
}

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml")).unwrap()
}

/// The example with every commented key in force.
fn example_uncommented() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    example().lines().map(uncomment).collect()
}

/// A configuration beside every file that the example names.
fn fixture(config: &str) -> Fixture {
    Fixture::new(
        config,
        &[
            ("hello/Procfile", "web: hello\n"),
            ("shop/Procfile", "web: shop\nworker: work\n"),
            ("shop/error.html", "<p>error"),
            ("shop/maintenance.html", "<p>soon"),
            ("shop/.env", "A=1\n"),
            ("shop/shop.pem", ""),
            ("shop/shop.key", ""),
            ("certs/other.pem", ""),
            ("acme-root.pem", ""),
        ],
    )
}

#[test]
fn the_example_has_every_key_and_no_other() {
    let read = keys_read();
    assert!(read.len() > 40 && read.contains("apps.NAME.timeouts.cool_off_max"), "{read:?}");
    assert!(read.contains("certs") && read.contains("certs.cert"), "{read:?}");
    assert_eq!(keys_written(&example_uncommented()), read);
}

#[test]
fn the_example_can_be_used_as_it_is_and_in_full() {
    assert_eq!(fixture(&example()).loaded().notes.warnings, []);
    let full = fixture(&example_uncommented()).loaded();
    assert_eq!(full.notes.warnings, []);
    assert_eq!(full.apps.len(), 3);
}

#[test]
fn commented_keys_show_the_defaults() {
    let fixture = fixture(&example());
    let brief = fixture.loaded();
    fs::write(fixture.path("dynomesh.toml"), example_uncommented()).unwrap();
    let full = fixture.loaded();
    assert_eq!(full.router, brief.router);
    assert_eq!(full.admin, brief.admin);
    assert_eq!(full.state_dir, brief.state_dir);
    assert_eq!(full.dynos, brief.dynos);
    // What the file decides is what is written in it; all else is the same.
    let hello = |config: &Config| AppConfig {
        said: Said::default(),
        ..config.apps[&AppName::parse("hello").unwrap()].clone()
    };
    assert_eq!(hello(&full), hello(&brief));
}

#[test]
fn what_serve_runs_out_of_the_box_is_well_formed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/dynomesh.toml");
    let config = fixture(&fs::read_to_string(path).unwrap()).loaded();
    assert_eq!(config.notes.warnings, []);
    assert_eq!(config.apps.len(), 1);
}

#[test]
fn keys_are_found_in_every_struct() {
    // Guards the trick itself: a struct that serde reads must be one whose keys are found.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Two {
        #[expect(dead_code, reason = "only its name matters")]
        a: Option<u32>,
        #[expect(dead_code, reason = "only its name matters")]
        b: Option<u32>,
    }
    let error = toml::from_str::<Two>("c = 1").err().unwrap();
    assert_eq!(unknown_field(error.message()), Some(("c", vec!["a", "b"])));
}
