//! Where the router listens, and what connections begin with there, as written → as used.

use toml::Spanned;

use crate::config::defaults;
use crate::config::findings::Findings;
use crate::config::values::listen_addr;
use crate::config::written::{List, Router};
use crate::model::{Endpoint, ListenAddr};

const HTTP: &str = "router.http";
const HTTPS: &str = "router.https";

/// An address, and where in the text it stands; nowhere if it holds by default.
struct Listed {
    addr: ListenAddr,
    at: Option<usize>,
}

/// The addresses of `http`, then those of `https`.
pub(crate) fn resolve_endpoints(findings: &mut Findings<'_>, written: &Router) -> Vec<Endpoint> {
    let http = addresses(findings, HTTP, &written.http, defaults::HTTP);
    let https = addresses(findings, HTTPS, &written.https, defaults::HTTPS);
    let endpoint =
        |addr: &ListenAddr, tls| Endpoint { addr: addr.clone(), tls, proxy_protocol: false };
    let mut endpoints: Vec<_> = http.iter().map(|it| endpoint(&it.addr, false)).collect();
    let mut with_tls: Vec<_> = https.iter().map(|it| endpoint(&it.addr, true)).collect();
    refuse_taken(findings, HTTPS, &https, written, &endpoints);
    if written.https.is_none() {
        refuse_taken(findings, HTTP, &http, written, &with_tls);
    }
    if let (Some(http), Some(https)) = (&written.http, &written.https)
        && http.get_ref().is_empty()
        && https.get_ref().is_empty()
    {
        let message = "expected at least one address to listen on, here or in router.https";
        findings.problem(http.span().start, HTTP, message);
    }
    endpoints.append(&mut with_tls);
    mark_proxy_protocol(findings, written, &mut endpoints);
    endpoints
}

/// Why nothing else can listen at `addr`, if the router does already.
///
/// An address that is written is compared as it is. One that holds by default was not seen by whoever wrote
/// the file, so that it gives way to all that excludes it.
pub(crate) fn taken(written: &Router, endpoints: &[Endpoint], addr: &ListenAddr) -> Option<String> {
    endpoints.iter().find_map(|endpoint| {
        let (key, is_default) = match endpoint.tls {
            false => (HTTP, written.http.is_none()),
            true => (HTTPS, written.https.is_none()),
        };
        let there = &endpoint.addr;
        if is_default {
            exclude_each_other(there, addr).then(|| {
                format!(
                    "{addr} is taken: {key} is {there} unless the file says otherwise ([] is none)"
                )
            })
        } else {
            (there == addr && is_one_place(addr)).then(|| format!("{addr} is in {key} already"))
        }
    })
}

fn addresses(findings: &mut Findings<'_>, key: &str, written: &List, default: &str) -> Vec<Listed> {
    let Some(written) = written else {
        let default = ListenAddr::parse(default).into_iter();
        return default.map(|addr| Listed { addr, at: None }).collect();
    };
    let mut listed: Vec<Listed> = Vec::new();
    for (addr, at) in parsed(findings, key, written.get_ref()) {
        if is_one_place(&addr) && listed.iter().any(|it| it.addr == addr) {
            findings.problem(at, key, format!("{addr} stands here twice"));
        }
        listed.push(Listed { addr, at: Some(at) });
    }
    listed
}

/// The addresses of a list that are some, each with its place in the text.
fn parsed(
    findings: &mut Findings<'_>,
    key: &str,
    items: &[Spanned<String>],
) -> Vec<(ListenAddr, usize)> {
    let parse = |item| listen_addr(findings, key, item).map(|addr| (addr, item.span().start));
    items.iter().filter_map(parse).collect()
}

fn refuse_taken(
    findings: &mut Findings<'_>,
    key: &str,
    listed: &[Listed],
    written: &Router,
    others: &[Endpoint],
) {
    for Listed { addr, at } in listed {
        if let (Some(at), Some(message)) = (at, taken(written, others, addr)) {
            findings.problem(*at, key, message);
        }
    }
}

fn mark_proxy_protocol(findings: &mut Findings<'_>, written: &Router, endpoints: &mut [Endpoint]) {
    const KEY: &str = "router.proxy_protocol";
    let Some(list) = &written.proxy_protocol else { return };
    let trusts = written.trusted_proxies.as_ref().is_some_and(|it| !it.get_ref().is_empty());
    let mut seen: Vec<ListenAddr> = Vec::new();
    for (addr, at) in parsed(findings, KEY, list.get_ref()) {
        let mut is_endpoint = false;
        for endpoint in endpoints.iter_mut().filter(|it| it.addr == addr) {
            endpoint.proxy_protocol = true;
            is_endpoint = true;
        }
        if !is_endpoint {
            findings.problem(at, KEY, format!("{addr} is neither in {HTTP} nor in {HTTPS}"));
        } else if seen.contains(&addr) {
            findings.problem(at, KEY, format!("{addr} stands here twice"));
        } else if matches!(addr, ListenAddr::Tcp(_)) && !trusts {
            let message = format!(
                "nobody could connect to {addr}: PROXY headers are accepted from router.trusted_proxies alone, and there are none"
            );
            findings.problem(at, KEY, message);
        }
        seen.push(addr);
    }
}

/// Port 0 asks the kernel for any free port, another one each time.
fn is_one_place(addr: &ListenAddr) -> bool {
    !matches!(addr, ListenAddr::Tcp(addr) if addr.port() == 0)
}

/// Whether the kernel lets only one of two listen: at equal addresses, and where one is every address of
/// the machine.
fn exclude_each_other(a: &ListenAddr, b: &ListenAddr) -> bool {
    let (ListenAddr::Tcp(a), ListenAddr::Tcp(b)) = (a, b) else { return a == b };
    let meet = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    meet && a.is_ipv4() == b.is_ipv4() && a.port() == b.port() && a.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Fixture;

    #[track_caller]
    fn endpoints(config: &str) -> Vec<String> {
        let text = |it: &Endpoint| {
            let scheme = if it.tls { "https" } else { "http" };
            format!("{scheme} {}{}", it.addr, if it.proxy_protocol { " after PROXY" } else { "" })
        };
        Fixture::new(config, &[]).loaded().router.endpoints.iter().map(text).collect()
    }

    #[track_caller]
    fn check(config: &str, expected: &[&str]) {
        let fixture = Fixture::new(config, &[]);
        let said = fixture.relative(&fixture.load().unwrap_err().to_string());
        let lines: Vec<_> =
            said.lines().map(|it| it.trim_start_matches("dynomesh.toml:")).collect();
        assert_eq!(lines, expected, "{config}");
    }

    #[test]
    fn there_is_https_unless_it_is_taken_out() {
        assert_eq!(endpoints(""), ["http 127.0.0.1:8080", "https 127.0.0.1:8443"]);
        assert_eq!(endpoints("router.https = []"), ["http 127.0.0.1:8080"]);
        assert_eq!(endpoints("router.http = []"), ["https 127.0.0.1:8443"]);
        assert_eq!(
            endpoints(
                "[router]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\", \"[::1]:443\"]"
            ),
            ["http 127.0.0.1:0", "https 127.0.0.1:0", "https [::1]:443"]
        );
        check(
            "[router]\nhttps = []\nhttp = []",
            &[
                "3: router.http: expected at least one address to listen on, here or in router.https",
            ],
        );
    }

    #[test]
    fn an_address_speaks_one_scheme() {
        check(
            "[router]\nhttp = [\"127.0.0.1:80\"]\nhttps = [\"127.0.0.1:443\",\n\"127.0.0.1:80\",\n\"127.0.0.1:443\"]\n[admin]\nhttp = \"127.0.0.1:443\"",
            &[
                "4: router.https: 127.0.0.1:80 is in router.http already",
                "5: router.https: 127.0.0.1:443 stands here twice",
                "7: admin.http: 127.0.0.1:443 is in router.https already",
            ],
        );
    }

    #[test]
    fn who_meets_a_default_is_told_of_it() {
        let taken = |addr: &str, key: &str, default: &str| {
            format!(
                "{addr} is taken: {key} is {default} unless the file says otherwise ([] is none)"
            )
        };
        for addr in ["127.0.0.1:8443", "0.0.0.0:8443"] {
            let https = taken(addr, "router.https", "127.0.0.1:8443");
            check(&format!("router.http = [\"{addr}\"]"), &[&format!("1: router.http: {https}")]);
            check(&format!("admin.http = \"{addr}\""), &[&format!("1: admin.http: {https}")]);
            assert_eq!(
                endpoints(&format!("router = {{ http = [\"{addr}\"], https = [] }}")),
                [format!("http {addr}")]
            );
        }
        let http = taken("0.0.0.0:8080", "router.http", "127.0.0.1:8080");
        check("router.https = [\"0.0.0.0:8080\"]", &[&format!("1: router.https: {http}")]);
        assert_eq!(endpoints("router.http = [\"[::]:8443\", \"127.0.0.2:8443\"]").len(), 3);
    }

    #[test]
    fn proxy_headers_are_for_addresses_that_are_listened_on() {
        let config = r#"[router]
            http = ["unix:/run/a.sock", "127.0.0.1:80"]
            proxy_protocol = ["unix:/run/a.sock", "127.0.0.1:8443"]
            trusted_proxies = ["10.0.0.1"]"#;
        assert_eq!(
            endpoints(config),
            [
                "http unix:/run/a.sock after PROXY",
                "http 127.0.0.1:80",
                "https 127.0.0.1:8443 after PROXY"
            ]
        );
        check(
            "[router]\nproxy_protocol = [\"127.0.0.1:81\",\n\"127.0.0.1:8080\",\n\"127.0.0.1:8080\"]\ntrusted_proxies = [\"10.0.0.1\"]",
            &[
                "2: router.proxy_protocol: 127.0.0.1:81 is neither in router.http nor in router.https",
                "4: router.proxy_protocol: 127.0.0.1:8080 stands here twice",
            ],
        );
    }

    #[test]
    fn proxy_headers_over_tcp_need_a_proxy_that_is_trusted() {
        check(
            "[router]\nproxy_protocol = [\"127.0.0.1:8080\"]\ntrusted_proxies = []",
            &[
                "2: router.proxy_protocol: nobody could connect to 127.0.0.1:8080: PROXY headers are accepted from router.trusted_proxies alone, and there are none",
            ],
        );
        let unix = "router = { http = [\"unix:/a\"], https = [], proxy_protocol = [\"unix:/a\"] }";
        assert_eq!(endpoints(unix), ["http unix:/a after PROXY"]);
    }
}
