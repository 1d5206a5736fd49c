//! Single values of the file: what is wrong is noted, and a stand-in returned, so that reading goes on.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::written::{DurationText, Optional};
use crate::config::{duration, limits};
use crate::model::{DynoAddr, ListenAddr};

/// A timer within the bounds that every timer has.
pub(crate) fn timeout(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Optional<DurationText>,
    default: Duration,
) -> Duration {
    duration_within(findings, key, written, default, limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX)
}

/// A duration within bounds of its own.
pub(crate) fn duration_within(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Optional<DurationText>,
    default: Duration,
    bounds: RangeInclusive<Duration>,
) -> Duration {
    let Some(written) = written else { return default };
    let at = written.span().start;
    let text = &written.get_ref().0;
    match duration::parse(text) {
        None => findings.problem(at, key, format!("expected {}, not {text:?}", duration::EXPECTED)),
        Some(found) if bounds.contains(&found) => return found,
        Some(_) => {
            let [min, max] = [*bounds.start(), *bounds.end()].map(duration::print);
            findings.problem(
                at,
                key,
                format!("expected a duration from {min} to {max}, not {text}"),
            );
        }
    }
    default
}

/// A timer that may also be zero, which then has a meaning of its own.
pub(crate) fn timeout_or_zero(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Optional<DurationText>,
    default: Duration,
) -> Duration {
    match written {
        Some(text) if duration::parse(&text.get_ref().0) == Some(Duration::ZERO) => Duration::ZERO,
        written => timeout(findings, key, written, default),
    }
}

/// One of some words.
pub(crate) fn choice<T: Copy>(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Optional<String>,
    choices: &[(&str, T)],
    default: T,
) -> T {
    let Some(written) = written else { return default };
    if let Some((_, chosen)) = choices.iter().find(|(word, _)| word == written.get_ref()) {
        return *chosen;
    }
    let words: Vec<_> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
    let message = format!("expected {}, not {:?}", words.join(" or "), written.get_ref());
    findings.problem(written.span().start, key, message);
    default
}

/// A number of what may be at most; zero would be an app that answers nobody.
pub(crate) fn traffic_limit(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Optional<u32>,
) -> Option<NonZeroU32> {
    let written = written.as_ref()?;
    let limit = NonZeroU32::new(*written.get_ref());
    if limit.is_none() {
        findings.problem(
            written.span().start,
            key,
            "expected 1 or more, not 0: absent means no limit",
        );
    }
    limit
}

/// A path of the file, absolute.
pub(crate) fn absolute(findings: &Findings<'_>, written: &str) -> PathBuf {
    make_absolute(&findings.path(written))
}

/// The path from the root. Where the working directory is gone the path is left as it is: opening it says
/// what is wrong better than we could.
pub(crate) fn make_absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Where to listen.
pub(crate) fn listen_addr(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Spanned<String>,
) -> Option<ListenAddr> {
    match ListenAddr::parse(written.get_ref()) {
        Ok(ListenAddr::Unix(path)) => {
            socket_path(findings, key, written, &path).map(ListenAddr::Unix)
        }
        Ok(tcp) => Some(tcp),
        Err(expected) => {
            let message = format!("expected {expected}, not {:?}", written.get_ref());
            findings.problem(written.span().start, key, message);
            None
        }
    }
}

/// Where a dyno that somebody else runs is reached.
pub(crate) fn dyno_addr(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Spanned<String>,
) -> Option<DynoAddr> {
    let expected = match DynoAddr::parse(written.get_ref()) {
        Ok(DynoAddr::Unix(path)) => {
            return socket_path(findings, key, written, &path).map(DynoAddr::Unix);
        }
        Ok(DynoAddr::Tcp(addr)) if addr.port() == 0 => "an address with a port that is not 0",
        Ok(tcp) => return Some(tcp),
        Err(expected) => expected,
    };
    findings.problem(
        written.span().start,
        key,
        format!("expected {expected}, not {:?}", written.get_ref()),
    );
    None
}

/// The absolute path of a unix socket, which the kernel wants short.
pub(crate) fn socket_path(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Spanned<String>,
    path: &Path,
) -> Option<PathBuf> {
    let path = make_absolute(&findings.path(&path.to_string_lossy()));
    let bytes = path.as_os_str().len();
    if bytes > limits::SOCKET_PATH_MAX {
        let message = format!(
            "a socket's path has at most {} bytes, {} has {bytes}",
            limits::SOCKET_PATH_MAX,
            path.display()
        );
        findings.problem(written.span().start, key, message);
        return None;
    }
    Some(path)
}
