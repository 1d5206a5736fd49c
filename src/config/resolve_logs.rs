//! Where lines go, as written → as used.

use toml::Spanned;

use crate::config::findings::{COMMAND, Findings};
use crate::config::resolve_certs::existing_file;
use crate::config::values::absolute;
use crate::config::written;
use crate::config::{LogFiles, LogsConfig, bytes, defaults, limits};
use crate::model::{DrainUrl, StatedDrain};

/// Makes `[logs]` as used.
pub(crate) fn resolve_logs(findings: &mut Findings<'_>, written: &written::Logs) -> LogsConfig {
    let max_size = max_size(findings, written);
    let keep = keep(findings, written);
    let ca_file = written.ca_file.as_ref();
    let ca_file = ca_file.and_then(|it| existing_file(findings, "logs.ca_file", it));
    let files = written.dir.as_ref().map(|it| {
        let dir = absolute(findings, it.get_ref());
        if it.get_ref().is_empty() || dir.exists() && !dir.is_dir() {
            let message = format!("expected a directory, not {:?}", it.get_ref());
            findings.problem(it.span().start, "logs.dir", message);
        }
        LogFiles { dir, max_size, keep }
    });
    if files.is_none() {
        let of_files = [
            ("logs.max_size", written.max_size.as_ref().map(|it| it.span().start)),
            ("logs.keep", written.keep.as_ref().map(|it| it.span().start)),
        ];
        for (key, at) in of_files {
            if let Some(at) = at {
                findings.problem(at, key, "is for files: it needs logs.dir");
            }
        }
    }
    LogsConfig { files, ca_file }
}

fn max_size(findings: &mut Findings<'_>, written: &written::Logs) -> u64 {
    let Some(written) = &written.max_size else { return defaults::LOG_FILE_SIZE };
    let text = &written.get_ref().0;
    match bytes::parse(text) {
        Some(size) if size >= limits::LOG_FILE_SIZE_MIN => return size,
        Some(_) => {
            let least = bytes::print(limits::LOG_FILE_SIZE_MIN);
            let message = format!("expected {least} or more, not {text}");
            findings.problem(written.span().start, "logs.max_size", message);
        }
        None => {
            let message = format!("expected {}, not {text:?}", bytes::EXPECTED);
            findings.problem(written.span().start, "logs.max_size", message);
        }
    }
    defaults::LOG_FILE_SIZE
}

fn keep(findings: &mut Findings<'_>, written: &written::Logs) -> u32 {
    let Some(written) = &written.keep else { return defaults::LOG_FILES_KEPT };
    let keep = *written.get_ref();
    if keep > limits::LOG_FILES_KEPT_MAX {
        let message = format!("expected 0 to {} files, not {keep}", limits::LOG_FILES_KEPT_MAX);
        findings.problem(written.span().start, "logs.keep", message);
    }
    keep
}

/// Makes the drains of one app as used: those of the file, then those of commands.
pub(crate) fn resolve_drains(
    findings: &mut Findings<'_>,
    key: &str,
    written: &written::List,
    stated: &[StatedDrain],
) -> Vec<DrainUrl> {
    let mut drains = written_drains(findings, key, written);
    // One that the file has come to say too is the file's.
    let stated = stated.iter().filter(|it| !drains.contains(&it.url)).map(|it| it.url.clone());
    drains.extend(stated.collect::<Vec<_>>());
    if drains.len() > limits::DRAINS_OF_APP_MAX {
        findings.problem(COMMAND, key, too_many_drains());
    }
    drains
}

fn too_many_drains() -> String {
    format!("an app has at most {} drains", limits::DRAINS_OF_APP_MAX)
}

fn written_drains(
    findings: &mut Findings<'_>,
    key: &str,
    written: &written::List,
) -> Vec<DrainUrl> {
    let mut drains: Vec<DrainUrl> = Vec::new();
    let items: &[Spanned<String>] = written.as_ref().map_or(&[], |it| it.get_ref());
    for item in items {
        let at = item.span().start;
        match DrainUrl::parse(item.get_ref()) {
            Ok(drain) if drains.contains(&drain) => {
                findings.problem(at, key, format!("{drain} stands here twice"));
            }
            Ok(_) if drains.len() == limits::DRAINS_OF_APP_MAX => {
                findings.problem(at, key, too_many_drains());
                break;
            }
            Ok(drain) => drains.push(drain),
            // Not what was written: there may be a password in it.
            Err(expected) => findings.problem(at, key, expected),
        }
    }
    drains
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Fixture;

    const APP: &str = "[apps.shop]\ndynos = [\"127.0.0.1:1\"]\n";

    #[track_caller]
    fn check(config: &str, expected: &[&str]) {
        let fixture = Fixture::new(config, &[("file", "")]);
        let said = fixture.relative(&fixture.load().unwrap_err().to_string());
        let lines: Vec<_> =
            said.lines().map(|it| it.trim_start_matches("dynomesh.toml:")).collect();
        assert_eq!(lines, expected, "{config}");
    }

    #[test]
    fn files_and_drains_are_read() {
        let config = format!(
            "[logs]\ndir = \"logs\"\nmax_size = \"1MB\"\nkeep = 0\nca_file = \"file\"\n{APP}drains = [\"syslog://a.test:1\", \"https://a.test\"]\n"
        );
        let fixture = Fixture::new(&config, &[("file", "")]);
        let config = fixture.loaded();
        let files = LogFiles { dir: fixture.path("logs"), max_size: 1 << 20, keep: 0 };
        assert_eq!(
            config.logs,
            LogsConfig { files: Some(files), ca_file: Some(fixture.path("file")) }
        );
        let drains = config.apps.values().flat_map(|app| &app.drains);
        let drains: Vec<_> = drains.map(ToString::to_string).collect();
        assert_eq!(drains, ["syslog://a.test:1", "https://a.test:443"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("[logs]\ndir = \"file\"\n", &["2: logs.dir: expected a directory, not \"file\""]);
        check("[logs]\nkeep = 1\n", &["2: logs.keep: is for files: it needs logs.dir"]);
        check(
            "[logs]\ndir = \"logs\"\nmax_size = \"0MB\"\nkeep = 2000\n",
            &[
                "3: logs.max_size: expected 1MB or more, not 0MB",
                "4: logs.keep: expected 0 to 1000 files, not 2000",
            ],
        );
        check(
            "[logs]\ndir = \"logs\"\nmax_size = \"big\"\nca_file = \"none\"\n",
            &[
                "3: logs.max_size: expected an amount like \"512MB\" or \"2.5GB\", not \"big\"",
                "4: logs.ca_file: none: no such file",
            ],
        );
        check(
            &format!("{APP}drains = [\"syslog://a:1\", \"syslog://a:1\", \"tcp://u:secret@a\"]"),
            &[
                "3: apps.shop.drains: syslog://a:1 stands here twice",
                "3: apps.shop.drains: expected a URL like syslog+tls://logs.example.com:6514, syslog://10.0.0.1:514 or https://user:password@logs.example.com/path",
            ],
        );
    }
}
