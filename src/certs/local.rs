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

type Place = ArcSwapOption<Signed>;

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
                if let Some(before) = before.get(name) {
                    place.store(before.load_full());
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
fn kept(
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

fn dns_name(name: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::DnsName(name.try_into()?))
}
