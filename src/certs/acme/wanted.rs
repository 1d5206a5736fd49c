//! What the configuration asks of ACME: for which names, of whom, and by what they can be proved.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::{AcmeConfig, Config};
use crate::model::Domain;

/// How the server is shown that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A certificate in a handshake of its own (RFC 8737).
    TlsAlpn01,
    /// A word at a path, in the clear (RFC 8555 §8.3).
    Http01,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsAlpn01 => "TLS-ALPN-01",
            Self::Http01 => "HTTP-01",
        })
    }
}

/// What is wanted of ACME, from one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `[acme]`
    pub(crate) config: AcmeConfig,
    /// The names, each to get a certificate of its own: one chosen by SNI needs no others, and a name that
    /// fails takes none with it.
    pub(crate) names: BTreeSet<Box<str>>,
    /// The proofs that our listeners can give, the better one first: TLS-ALPN-01 needs nothing but the port
    /// that the certificate is for. Not empty.
    pub(crate) proofs: Vec<Proof>,
}

impl Wanted {
    /// The apps' exact domains that have no certificate of the configuration's own, as `has_own` tells.
    /// `None`: nothing, for there is no `[acme]` or nobody listens.
    pub(crate) fn of(config: &Config, has_own: impl Fn(&str) -> bool) -> Option<Self> {
        let acme = config.acme.clone()?;
        let apps = config.apps.values().filter(|app| app.acme);
        let names = apps.flat_map(|app| &app.domains).filter_map(|domain| match domain {
            Domain::Exact(name) => (!has_own(name)).then(|| name.clone()),
            // Neither proof is for wildcards.
            Domain::Wildcard(_) => None,
        });
        let endpoints = &config.router.endpoints;
        let proof = |tls, proof| endpoints.iter().any(|it| it.tls == tls).then_some(proof);
        let proofs = [proof(true, Proof::TlsAlpn01), proof(false, Proof::Http01)];
        let proofs = proofs.into_iter().flatten().collect::<Vec<_>>();
        (!proofs.is_empty()).then(|| Self { config: acme, names: names.collect(), proofs })
    }

    /// Whether it asks the same server in the same way as another wish: what failed there may fail again.
    pub(crate) fn is_of_same_server(&self, other: &Self) -> bool {
        let AcmeConfig { directory, contact, renew_before: _, ca_file } = &self.config;
        (directory, contact, ca_file)
            == (&other.config.directory, &other.config.contact, &other.config.ca_file)
            && self.proofs == other.proofs
    }

    /// The proofs that can be given, this one first.
    pub(crate) fn preferring(&self, proof: Proof) -> Vec<Proof> {
        let others = self.proofs.iter().filter(|other| **other != proof);
        [&proof].into_iter().chain(others).copied().collect()
    }

    /// The proof to try first after this one failed.
    pub(crate) fn other(&self, proof: Proof) -> Proof {
        self.proofs.iter().copied().find(|other| *other != proof).unwrap_or(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const ACME: &str = "[acme]\nagree_to_terms = true\n";

    fn wanted(text: &str) -> Option<Wanted> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dynomesh.toml");
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        Wanted::of(&config, |name| name == "own.example")
    }

    #[test]
    fn exact_domains_without_a_certificate_of_their_own_are_wanted() {
        let apps = "[apps.a]\ndomains = [\"a.example\", \"*.a.example\", \"own.example\"]\n\
             [apps.b]\ndomains = [\"b.example\"]\nacme = false\n\
             [apps.c]\ndomains = [\"C.example\"]\n";
        let names = wanted(&format!("{ACME}{apps}")).unwrap().names;
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a.example".into(), "c.example".into()]);
        assert_eq!(wanted(apps), None);
    }

    #[test]
    fn proofs_are_those_that_the_listeners_can_give() {
        let check = |listeners: &str, expected: &[Proof]| {
            let wanted = wanted(&format!("[router]\n{listeners}\n{ACME}"));
            assert_eq!(wanted.map(|it| it.proofs).unwrap_or_default(), expected);
        };
        check("https = [\"127.0.0.1:1\"]", &[Proof::TlsAlpn01, Proof::Http01]);
        check("https = []", &[Proof::Http01]);
        check("http = []\nhttps = [\"127.0.0.1:1\"]", &[Proof::TlsAlpn01]);
    }

    #[test]
    fn the_other_proof_has_its_turn_where_there_is_one() {
        let both = wanted(&format!("[router]\nhttps = [\"127.0.0.1:1\"]\n{ACME}")).unwrap();
        assert_eq!(both.other(Proof::TlsAlpn01), Proof::Http01);
        assert_eq!(both.other(Proof::Http01), Proof::TlsAlpn01);
        assert_eq!(both.preferring(Proof::Http01), [Proof::Http01, Proof::TlsAlpn01]);
        let one = wanted(&format!("[router]\nhttps = []\n{ACME}")).unwrap();
        assert_eq!(one.other(Proof::Http01), Proof::Http01);
    }
}
