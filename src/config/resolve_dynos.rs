//! As written → as used, for what holds for every dyno: `[dynos]`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::values::{absolute, choice};
use crate::config::written::{self, Optional};
use crate::config::{DynosConfig, IsolationWanted, NetworkWanted};
use crate::config::{defaults, limits};

/// Makes `[dynos]` as used.
pub(crate) fn resolve_dynos(findings: &mut Findings<'_>, written: &written::Dynos) -> DynosConfig {
    let choices = [
        ("auto", IsolationWanted::Auto),
        ("required", IsolationWanted::Required),
        ("none", IsolationWanted::None),
    ];
    let isolation =
        choice(findings, "dynos.isolation", &written.isolation, &choices, IsolationWanted::Auto);
    let exposed = written.expose.as_ref().map_or(&[][..], |it| it.get_ref());
    DynosConfig {
        isolation,
        uids: resolve_uids(findings, &written.uids),
        network: resolve_network(findings, &written.network, isolation),
        addresses: resolve_addresses(findings, &written.addresses),
        expose: exposed.iter().filter_map(|path| resolve_exposed(findings, path)).collect(),
    }
}

fn resolve_uids(findings: &mut Findings<'_>, written: &Optional<String>) -> RangeInclusive<u32> {
    let Some(written) = written else { return defaults::UIDS };
    match parse_uids(written.get_ref()) {
        Some(uids) => uids,
        None => {
            let [min, max] = [limits::UIDS.start(), limits::UIDS.end()];
            let message = format!(
                "expected a range like \"200000-265535\", the smaller first, from {min} to {max}, not {:?}",
                written.get_ref()
            );
            findings.problem(written.span().start, "dynos.uids", message);
            defaults::UIDS
        }
    }
}

/// `FIRST-LAST`, both lent.
fn parse_uids(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let number = digits.then(|| text.parse().ok())?;
        number.filter(|number| limits::UIDS.contains(number))
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

fn resolve_network(
    findings: &mut Findings<'_>,
    written: &Optional<String>,
    isolation: IsolationWanted,
) -> NetworkWanted {
    let choices = [("host", NetworkWanted::Host), ("private", NetworkWanted::Private)];
    let network = choice(findings, "dynos.network", written, &choices, NetworkWanted::Host);
    if let (Some(written), NetworkWanted::Private, IsolationWanted::None) =
        (written, network, isolation)
    {
        let message = "a network of its own takes isolation, and dynos.isolation is \"none\"";
        findings.problem(written.span().start, "dynos.network", message.to_owned());
    }
    network
}

fn resolve_addresses(findings: &mut Findings<'_>, written: &Optional<String>) -> Ipv4Net {
    let Some(written) = written else { return defaults::ADDRESSES };
    match parse_addresses(written.get_ref()) {
        Some(addresses) => addresses,
        None => {
            let within = limits::ADDRESSES.map(|it| it.to_string()).join(", ");
            let message = format!(
                "expected an IPv4 network like \"{}\", from /8 to /{}, within one of {within}, not {:?}",
                defaults::ADDRESSES,
                limits::ADDRESSES_PREFIX_MAX,
                written.get_ref()
            );
            findings.problem(written.span().start, "dynos.addresses", message);
            defaults::ADDRESSES
        }
    }
}

/// A private network, by its first address.
fn parse_addresses(text: &str) -> Option<Ipv4Net> {
    let addresses = text.parse::<Ipv4Net>().ok()?;
    let is_network = addresses.addr() == addresses.network();
    let is_large = addresses.prefix_len() <= limits::ADDRESSES_PREFIX_MAX;
    let is_private = limits::ADDRESSES.iter().any(|private| private.contains(&addresses));
    (is_network && is_large && is_private).then_some(addresses)
}

/// What is shown to dynos has to be there now: a slip would otherwise be seen only when one starts.
fn resolve_exposed(findings: &mut Findings<'_>, written: &Spanned<String>) -> Option<PathBuf> {
    let path = absolute(findings, written.get_ref());
    let wrong = if path.canonicalize().is_ok_and(|real| real == Path::new("/")) {
        "expected a part of the host: / would be all of it".to_owned()
    } else if !path.exists() {
        format!("there is no {}", path.display())
    } else {
        return Some(path);
    };
    findings.problem(written.span().start, "dynos.expose", wrong);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Fixture;

    #[test]
    fn uids_are_a_range_of_users_that_nobody_is() {
        let check = |text, expected| assert_eq!(parse_uids(text), expected, "{text}");
        check("200000-265535", Some(200_000..=265_535));
        check("70000-70000", Some(70_000..=70_000));
        check("65536-4294967293", Some(65_536..=4_294_967_293));
        for bad in [
            "",
            "-",
            "200000",
            "200000-",
            "-200000",
            "200001-200000",
            "1000-2000",
            "65535-70000",
            "70000-4294967294",
            "70000-4294967296",
            "+70000-70001",
            "70000 - 70001",
            "a-b",
            "0x10-2",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn addresses_are_a_private_network_with_room() {
        let check = |text: &str, good: bool| {
            assert_eq!(parse_addresses(text).is_some(), good, "{text}");
        };
        for good in
            ["10.213.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.7.0/24", "100.64.0.0/10"]
        {
            check(good, true);
        }
        for bad in [
            "",
            "10.213.0.0",
            "10.213.0.1/16",
            "10.213.0.0/25",
            "10.0.0.0/7",
            "0.0.0.0/0",
            "172.0.0.0/8",
            "192.168.0.0/15",
            "8.8.8.0/24",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "fd00::/64",
            "10.213.0.0/33",
            " 10.213.0.0/16",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn a_network_of_its_own_takes_isolation() {
        let dynos = Fixture::new("[dynos]\nnetwork = \"private\"\n", &[]).loaded().dynos;
        assert_eq!((dynos.network, dynos.addresses), (NetworkWanted::Private, defaults::ADDRESSES));
        let config =
            "[dynos]\nisolation = \"none\"\nnetwork = \"private\"\naddresses = \"10.1.2.3/16\"\n";
        let fixture = Fixture::new(config, &[]);
        let said = fixture.relative(&fixture.load().unwrap_err().to_string());
        let expected = [
            "dynomesh.toml:3: dynos.network: a network of its own takes isolation, and dynos.isolation is \"none\"",
            "dynomesh.toml:4: dynos.addresses: expected an IPv4 network like \"10.213.0.0/16\", from /8 to /24, within one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, not \"10.1.2.3/16\"",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let config = "[dynos]\nisolation = \"some\"\nuids = \"1-2\"\nexpose = [\"/\", \"gone\"]\n";
        let fixture = Fixture::new(config, &[]);
        let said = fixture.relative(&fixture.load().unwrap_err().to_string());
        let expected = [
            "dynomesh.toml:2: dynos.isolation: expected \"auto\" or \"required\" or \"none\", not \"some\"",
            "dynomesh.toml:3: dynos.uids: expected a range like \"200000-265535\", the smaller first, from 65536 to 4294967293, not \"1-2\"",
            "dynomesh.toml:4: dynos.expose: expected a part of the host: / would be all of it",
            "dynomesh.toml:4: dynos.expose: there is no gone",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn isolation_can_be_required() {
        let dynos = Fixture::new("[dynos]\nisolation = \"required\"\n", &[]).loaded().dynos;
        assert_eq!(dynos.isolation, IsolationWanted::Required);
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = "[dynos]\nisolation = \"none\"\nexpose = [\"tools\", \"/usr\"]\n";
        let fixture = Fixture::new(config, &[("tools/node", "")]);
        let dynos = fixture.loaded().dynos;
        assert_eq!(dynos.isolation, IsolationWanted::None);
        assert_eq!(dynos.uids, defaults::UIDS);
        assert_eq!(dynos.expose, [fixture.path("tools"), "/usr".into()]);
    }
}
