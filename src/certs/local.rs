//! The names that the mesh serves, each with what the local CA signed for it once somebody asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rcgen::SanType;
use rustc_hash::FxHashMap;
use rustls::sign::CertifiedKey;

use crate::certs::ca::{Ca, Signed};
use crate::config::{Config, limits};
use crate::model::Domain;

/// One place for a certificate per name of the configuration, so that no client can make it grow. A worker
/// that finds the place empty signs, and so may another at the same moment: one of two good certificates
/// stays.
pub(in crate::certs) struct LocalNames {
    /// Where apps answer at `NAME.domain`.
    domain: Box<str>,
    /// The domain's own certificate, which those get to see who ask for no name or for one that nobody knows.
    default: Place,
    exact: FxHashMap<Box<str>, Place>,
    /// By the name without `*.`.
    wildcard: FxHashMap<Box<str>, Place>,
}

pub(in crate::certs) type Place = ArcSwapOption<Signed>;

impl LocalNames {
    /// The names of a configuration, with no certificate yet.
    pub(in crate::certs) fn of(config: &Config) -> Self {
        let domain = config.router.domain.clone();
        let mut exact = FxHashMap::default();
        let mut wildcard = FxHashMap::default();
        for (app, settings) in &config.apps {
            exact.insert(format!("{app}.{domain}").into(), Place::empty());
            for domain in &settings.domains {
                match domain {
                    Domain::Exact(name) => exact.insert(name.clone(), Place::empty()),
                    Domain::Wildcard(name) => wildcard.insert(name.clone(), Place::empty()),
                };
            }
        }
        Self { domain, default: Place::empty(), exact, wildcard }
    }

    /// Takes over what was signed for names that are still served: a reload signs nothing anew.
    pub(in crate::certs) fn inherit(&self, before: &Self) {
        if self.domain == before.domain {
            self.default.store(before.default.load_full());
        }
        for (now, before) in [(&self.exact, &before.exact), (&self.wildcard, &before.wildcard)] {
            for (name, place) in now {
                if let Some(signed) = before.get(name).and_then(Place::load_full) {
                    place.store(Some(signed));
                }
            }
        }
    }

    /// The certificate for a name that the mesh serves, signed now if it must be.
    pub(in crate::certs) fn find(
        &self,
        name: &str,
        ca: &Ca,
        now: SystemTime,
    ) -> Option<Result<Arc<CertifiedKey>, rcgen::Error>> {
        let sign = |name: &str| ca.sign(vec![dns_name(name)?], now);
        Some(match self.known(name)? {
            Known::Exact(place) => kept(place, now, || sign(name)),
            Known::Below(parent, place) => kept(place, now, || sign(&format!("*.{parent}"))),
            // Signed each time: there is no end to such names.
            Known::FarBelow => sign(name).map(|signed| signed.key),
        })
    }

    /// The certificate of the domain.
    pub(in crate::certs) fn default(
        &self,
        ca: &Ca,
        now: SystemTime,
    ) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        kept(&self.default, now, || ca.sign(names_of_domain(&self.domain)?, now))
    }

    fn known(&self, name: &str) -> Option<Known<'_>> {
        if let Some(place) = self.exact.get(name) {
            return Some(Known::Exact(place));
        }
        if self.wildcard.is_empty() {
            return None;
        }
        let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        let parents = dots.map(|(at, _)| &name[at + 1..]).enumerate();
        let mut known =
            parents.filter_map(|(depth, it)| Some((depth, self.wildcard.get_key_value(it)?)));
        Some(match known.next()? {
            (0, (parent, place)) => Known::Below(parent, place),
            _ => Known::FarBelow,
        })
    }
}

/// How the mesh knows a name.
enum Known<'a> {
    Exact(&'a Place),
    /// As one label below a wildcard domain.
    Below(&'a str, &'a Place),
    /// As several: our wildcards are for every depth, those of certificates for one label (RFC 9525 §6.3).
    FarBelow,
}

/// What is in a place and has more than a third of its life before it, or goes there now.
pub(in crate::certs) fn kept(
    place: &Place,
    now: SystemTime,
    sign: impl FnOnce() -> Result<Signed, rcgen::Error>,
) -> Result<Arc<CertifiedKey>, rcgen::Error> {
    if let Some(signed) = &*place.load()
        && signed.not_after > now + limits::LOCAL_VALIDITY / 3
    {
        return Ok(signed.key.clone());
    }
    let signed = Arc::new(sign()?);
    let key = signed.key.clone();
    place.store(Some(signed));
    Ok(key)
}

/// The names of the domain's certificate. Who says `localhost` may say it by its addresses, too.
fn names_of_domain(domain: &str) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = vec![dns_name(domain)?];
    if domain == "localhost" {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        names.extend(loopback.map(SanType::IpAddress));
    }
    Ok(names)
}

pub(in crate::certs) fn dns_name(name: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::DnsName(name.try_into()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::certs::fixture::{DAY, Fixture};

    const TEXT: &str =
        "[apps.shop]\ndomains = [\"shop.test\", \"*.shop.test\", \"*.b.shop.test\"]\n";

    struct Scene {
        fixture: Fixture,
        ca: Ca,
        names: LocalNames,
        now: SystemTime,
    }

    impl Scene {
        fn new() -> Self {
            let fixture = Fixture::new();
            let config = fixture.config(TEXT);
            let ca = Ca::open(&config.state_dir).unwrap();
            Self { fixture, ca, names: LocalNames::of(&config), now: SystemTime::now() }
        }

        fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
            Some(self.names.find(name, &self.ca, self.now)?.unwrap())
        }

        #[track_caller]
        fn is_kept(&self, first: &str, second: &str) -> bool {
            Arc::ptr_eq(&self.find(first).unwrap(), &self.find(second).unwrap())
        }
    }

    #[test]
    fn what_clients_may_ask_cannot_make_it_grow() {
        let scene = Scene::new();
        assert!(scene.is_kept("shop.test", "shop.test"));
        assert!(scene.is_kept("shop.localhost", "shop.localhost"));
        assert!(scene.is_kept("a.shop.test", "b.shop.test"), "one wildcard for all of them");
        assert!(scene.is_kept("a.b.shop.test", "c.b.shop.test"), "the longest wildcard");
        assert!(!scene.is_kept("a.a.shop.test", "a.a.shop.test"));
        assert!(!scene.is_kept("a.shop.test", "a.b.shop.test"));
        for unknown in
            ["localhost", "other.localhost", "a.shop.localhost", "test", "xshop.test", ""]
        {
            assert!(scene.find(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let mut scene = Scene::new();
        let first = scene.find("shop.test").unwrap();
        let begin = scene.now;
        // Valid until 396 days from now, for it began a day ago.
        scene.now = begin + (396 * DAY - 397 * DAY / 3) - Duration::from_secs(1);
        assert!(Arc::ptr_eq(&first, &scene.find("shop.test").unwrap()));
        scene.now += Duration::from_secs(1);
        let second = scene.find("shop.test").unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &scene.find("shop.test").unwrap()));
    }

    /// What browsers ask of a certificate beyond a good signature, which handshakes in the other tests check.
    #[test]
    fn a_certificate_is_one_that_browsers_take() {
        let scene = Scene::new();
        let key = scene.find("shop.test").unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&key.cert[0]).unwrap();
        let validity = leaf.validity();
        let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(seconds, 397 * 86_400);
        let now = scene.now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        assert_eq!(now - validity.not_before.timestamp(), 86_400);
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(!leaf.is_ca());
        assert_ne!(leaf.raw_serial(), {
            let other = scene.find("shop.localhost").unwrap();
            let (_, other) = x509_parser::parse_x509_certificate(&other.cert[0]).unwrap();
            other.raw_serial().to_vec()
        });
    }

    #[test]
    fn a_reload_signs_nothing_anew() {
        let scene = Scene::new();
        let before = ["shop.test", "a.shop.test"].map(|name| scene.find(name).unwrap());
        let default = scene.names.default(&scene.ca, scene.now).unwrap();
        let text = TEXT.replace("\"*.b.shop.test\"", "\"new.test\"");
        let after = LocalNames::of(&scene.fixture.config(&text));
        after.inherit(&scene.names);
        let scene = Scene { names: after, ..scene };
        for (name, before) in ["shop.test", "a.shop.test"].iter().zip(&before) {
            assert!(Arc::ptr_eq(before, &scene.find(name).unwrap()), "{name}");
        }
        assert!(Arc::ptr_eq(&default, &scene.names.default(&scene.ca, scene.now).unwrap()));
        assert!(scene.find("new.test").is_some());
        // With another domain the default is for another name.
        let moved = format!("[router]\ndomain = \"mesh.test\"\n{TEXT}");
        let moved = LocalNames::of(&scene.fixture.config(&moved));
        moved.inherit(&scene.names);
        assert!(!Arc::ptr_eq(&default, &moved.default(&scene.ca, scene.now).unwrap()));
    }
}
