//! How a dyno finds names: /etc/resolv.conf leads to a server that it reaches.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::init::sandbox::plan::SandboxError;
use crate::init::sandbox::root::Root;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where systemd-resolved, which listens on the host's loopback, says whom it asks itself (systemd-resolved(8)).
const UPSTREAM_DIR: &str = "/run/systemd/resolve";
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// Where a dyno sees that directory.
const SHOWN_DIR: &str = "/run/resolve";
const SHOWN: &str = "/run/resolve/resolv.conf";

/// Where names are resolved by a service of the host, /etc/resolv.conf is a link into its directory, whose
/// files it replaces: the directory is shown, so that the dyno follows. One with a network of its own cannot ask a
/// service on the host's loopback: it asks whom that one asks.
pub(in crate::init::sandbox) fn show(
    root: &mut Root,
    own_network: bool,
) -> Result<(), SandboxError> {
    let Ok(file) = fs::canonicalize(RESOLV_CONF) else { return Ok(()) };
    if own_network && let Resolver::Upstream = resolver() {
        return show_upstream(root, &file);
    }
    // Below a directory of the root there are other services' files as well.
    match file.parent() {
        Some(dir) if dir.components().count() > 2 => root.expose(dir),
        _ => root.expose(&file),
    }
}

fn show_upstream(root: &Root, file: &Path) -> Result<(), SandboxError> {
    if file.starts_with("/etc") {
        // A plain file, which nobody replaces while dynos live.
        return root.show(Path::new(UPSTREAM), file, false);
    }
    let shown_dir = Path::new(SHOWN_DIR);
    root.make_dir(shown_dir)?;
    root.show(Path::new(UPSTREAM_DIR), shown_dir, false)?;
    root.make_dir(file.parent().unwrap_or(file))?;
    root.link(file, Path::new(SHOWN))
}

/// Who resolves names for dynos with networks of their own.
#[derive(Debug, PartialEq, Eq)]
enum Resolver {
    /// Whom the host asks.
    OfTheHost,
    /// Whom the service on the host's loopback asks.
    Upstream,
    /// Nobody whom they reach.
    None,
}

/// Why dynos with networks of their own find no names on this host; `None`: they do.
pub fn unreached_resolver() -> Option<String> {
    (resolver() == Resolver::None).then(|| {
        format!(
            "{RESOLV_CONF} names only servers on the host's loopback, and there is no {UPSTREAM}"
        )
    })
}

fn resolver() -> Resolver {
    let read = |path| fs::read_to_string(path).ok();
    // Without a file, libraries ask 127.0.0.1 (resolv.conf(5)).
    choose(&read(RESOLV_CONF).unwrap_or_default(), read(UPSTREAM).as_deref())
}

fn choose(resolv_conf: &str, upstream: Option<&str>) -> Resolver {
    if has_server_elsewhere(resolv_conf) {
        Resolver::OfTheHost
    } else if upstream.is_some_and(has_server_elsewhere) {
        Resolver::Upstream
    } else {
        Resolver::None
    }
}

/// Whether it names a server that is not on the loopback.
fn has_server_elsewhere(resolv_conf: &str) -> bool {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    // A server's interface (`fe80::1%eth0`) is one of the host's.
    servers.filter_map(|it| it.parse::<IpAddr>().ok()).any(|it| !it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_the_loopback_is_passed_over_for_whom_it_asks() {
        let check = |resolv_conf: &str, upstream: Option<&str>, expected: Resolver| {
            assert_eq!(choose(resolv_conf, upstream), expected, "{resolv_conf:?} {upstream:?}");
        };
        let stub = "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0\nsearch lan\n";
        let real = "nameserver 192.0.2.1\n";
        check(real, None, Resolver::OfTheHost);
        check("nameserver 127.0.0.1\nnameserver 192.0.2.1", None, Resolver::OfTheHost);
        check("  nameserver\t2001:db8::1", Some(real), Resolver::OfTheHost);
        check(stub, Some(real), Resolver::Upstream);
        check("", Some(real), Resolver::Upstream);
        check("nameserver ::1\n#nameserver 192.0.2.1", Some(real), Resolver::Upstream);
        check(stub, None, Resolver::None);
        check(stub, Some("nameserver ::1"), Resolver::None);
        check("nameserver fe80::1%eth0", None, Resolver::None);
    }
}
