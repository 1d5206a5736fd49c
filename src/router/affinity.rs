//! Session affinity: a client's requests go to the same dyno while it is there.
//!
//! By a cookie that names the dyno which answered first, or by the client's address on the ring of the app's
//! dynos. A dyno that cannot take a request now (quarantined, closed, tried already) is passed over for that
//! request alone; a client gets another cookie when the dyno of its own is not in the line-up any more.

use std::cell::RefCell;
use std::fmt::Write;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::slice;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use rustc_hash::FxHashMap;

use crate::config::limits::RING_STEPS_MAX;
use crate::model::{Affinity, ClientNet, Hundredths};
use crate::router::clock::Tick;
use crate::table::{App, Dyno, Lease, Lineup};
use crate::wire::RequestHead;

/// The cookie's name.
const COOKIE: &str = "dynomesh-session-affinity";
/// How long a browser keeps it, in seconds: as Heroku's, a day. It is not renewed, so that clients come to
/// dynos that were added since.
const MAX_AGE: u32 = 24 * 60 * 60;
/// Bytes of a signature: half of SHA-256's, which nobody guesses.
const MARK: usize = 16;

/// Which dyno a request should go to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// Any.
    Any,
    /// The one that a cookie names, where the request has one. `secure`: another cookie would be one that is
    /// never sent in the clear.
    Cookie { named: Option<Named>, secure: bool },
    /// The one that the client belongs to.
    Client(ClientNet),
}

/// What a cookie says. Whether it is ours is seen when the dyno is looked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    number: u32,
    mark: [u8; MARK],
}

impl Wish {
    /// What a request to this app wishes. `secure`: its client's connection is. `client` is asked only where it
    /// matters.
    pub(crate) fn of(
        app: &App,
        head: &RequestHead<'_, '_>,
        secure: bool,
        client: impl FnOnce() -> Option<ClientNet>,
    ) -> Self {
        match app.policy.affinity {
            Affinity::Off => Self::Any,
            Affinity::Cookie => {
                let fields = head.end_to_end();
                let cookies = fields.filter(|field| field.name.eq_ignore_ascii_case("cookie"));
                let named = cookies.filter_map(|field| named(field.value)).next();
                Self::Cookie { named, secure }
            }
            Affinity::Address => client().map_or(Self::Any, Self::Client),
        }
    }

    /// A slot on that dyno, or for a client on the next after it that can take the request; `None` where any
    /// other dyno will do. `spared`: ids of dynos that must not have it.
    pub(crate) fn lease(
        &self,
        seal: &Seal,
        app: &App,
        lineup: &Lineup,
        spared: &[u64],
        now: Tick,
    ) -> Option<Lease> {
        let lease = |dynos: &[Arc<Dyno>]| {
            let usable =
                |dyno: &&Arc<Dyno>| dyno.quarantined_until() <= now && !spared.contains(&dyno.id());
            dynos.iter().filter(usable).find_map(Dyno::lease)
        };
        match self {
            Self::Any | Self::Cookie { named: None, .. } => None,
            Self::Cookie { named: Some(named), .. } => lease(named.dynos(seal, app, lineup)),
            Self::Client(client) => {
                let key = client.octets();
                let canary = lineup.canary.as_ref().filter(|canary| is_one_of(canary.share, &key));
                if let Some(lease) = canary.and_then(|it| lease(slice::from_ref(&it.dyno))) {
                    return Some(lease);
                }
                let walk = lineup.ring.as_ref()?.walk(&key).take(RING_STEPS_MAX);
                walk.map(|number| lineup.numbered(number)).find_map(lease)
            }
        }
    }

    /// The cookie for a client whose request goes to this dyno, where it needs one: the value of a Set-Cookie
    /// field.
    pub(crate) fn cookie(&self, seal: &Seal, app: &App, dyno: &Dyno) -> Option<Box<str>> {
        let Self::Cookie { named, secure } = self else { return None };
        let lineup = app.roster.lineup();
        let is_there = |named: &Named| !named.dynos(seal, app, &lineup).is_empty();
        if named.as_ref().is_some_and(is_there) {
            return None;
        }
        let mut cookie = format!("{COOKIE}={}.", dyno.name());
        for byte in seal.mark(app, dyno, lineup.is_canary(dyno)) {
            // Writing to a String does not fail.
            let _ = write!(cookie, "{byte:02x}");
        }
        let secure = if *secure { "; Secure" } else { "" };
        let _ = write!(cookie, "; Max-Age={MAX_AGE}; Path=/; HttpOnly; SameSite=Lax{secure}");
        Some(cookie.into())
    }
}

impl Named {
    /// The records of the dyno in the line-up; none if it is not there, or if the cookie is not ours.
    fn dynos<'a>(&self, seal: &Seal, app: &App, lineup: &'a Lineup) -> &'a [Arc<Dyno>] {
        let dynos = lineup.numbered(self.number);
        let is_marked = |dyno: &Dyno, is_canary| {
            verify_slices_are_equal(&seal.mark(app, dyno, is_canary), &self.mark).is_ok()
        };
        let canary = lineup.canary.as_ref().map(|canary| &canary.dyno);
        let canary = canary.filter(|dyno| dyno.name().number == self.number);
        if let Some(canary) = canary.filter(|dyno| is_marked(dyno, true)) {
            return slice::from_ref(canary);
        }
        let is_ours = |dyno: &Arc<Dyno>| is_marked(dyno, false);
        // While a dyno is being replaced there are two records of one name, and one mark.
        if dynos.first().is_some_and(is_ours) { dynos } else { &[] }
    }
}

/// The first of our cookies in the value of a Cookie field (RFC 6265 §4.2.1): `web.NUMBER.MARK`.
fn named(cookies: &[u8]) -> Option<Named> {
    cookies.split(|byte| *byte == b';').find_map(|cookie| {
        let value = cookie.trim_ascii().strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"=")?;
        let (number, mark) = str::from_utf8(value).ok()?.strip_prefix("web.")?.split_once('.')?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits(number) || !digits(mark) || mark.len() != 2 * MARK {
            return None;
        }
        let mark = u128::from_str_radix(mark, 16).ok()?.to_be_bytes();
        Some(Named { number: number.parse().ok()?, mark })
    })
}

/// Signs the names of dynos, so that no client can choose one. One for each worker.
pub(crate) struct Seal {
    key: hmac::Key,
    /// By the id of the dyno's record, and whether that is a canary's.
    marks: RefCell<FxHashMap<(u64, bool), [u8; MARK]>>,
}

impl Seal {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), marks: RefCell::default() }
    }

    /// The signature of a dyno, the same after a restart. Those of somebody else are known by their address,
    /// since their number may be another's when the daemon starts again. That of a canary is good for as long as it is
    /// one.
    fn mark(&self, app: &App, dyno: &Dyno, is_canary: bool) -> [u8; MARK] {
        let sign = || {
            let known_by = match (is_canary, dyno.is_managed()) {
                (true, _) => format!("canary {} {}", dyno.name(), dyno.id()),
                (false, true) => dyno.name().to_string(),
                (false, false) => dyno.addr().to_string(),
            };
            let tag = hmac::sign(&self.key, format!("{}\n{known_by}", app.name).as_bytes());
            let mut mark = [0; MARK];
            mark.copy_from_slice(&tag.as_ref()[..MARK]);
            mark
        };
        if dyno.is_closed() {
            // It was forgotten, or soon will be.
            return sign();
        }
        *self.marks.borrow_mut().entry((dyno.id(), is_canary)).or_insert_with(sign)
    }

    /// A record has left the table.
    pub(crate) fn forget(&self, dyno: &Dyno) {
        let mut marks = self.marks.borrow_mut();
        for is_canary in [false, true] {
            marks.remove(&(dyno.id(), is_canary));
        }
    }
}

/// Whether a client is of those so many percent of all clients: the same ones each time.
fn is_one_of(share: Hundredths, client: &impl Hash) -> bool {
    // With keys that are always the same, so that all workers agree.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(client);
    hash % u64::from(Hundredths::ALL.0) < u64::from(share.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        AppName, AppPolicy, AppTimeouts, Balance, DynoAddr, DynoName, Expect, ProcessType,
        TrafficLimits,
    };
    use crate::table::{AppId, Canary, Place, Publisher, Ring, Roster, Routes, Standing, Table};
    use crate::wire::FieldSlots;

    const KEY: [u8; 32] = [7; 32];

    fn app(name: &str, affinity: Affinity) -> Arc<App> {
        let time = Duration::from_secs(1);
        let timeouts = AppTimeouts {
            hold: time,
            connect: time,
            first_byte: time,
            rolling: time,
            linger: time,
            drain: time,
            ws_drain: time,
            dyno_keepalive: time,
        };
        let policy = AppPolicy {
            timeouts,
            balance: Balance::P2c,
            expect: Expect::Router,
            maintenance: false,
            backlog: 1,
            force_https: false,
            http2_to_dyno: false,
            affinity,
            slow_start: None,
            limits: TrafficLimits::default(),
            client_limits: TrafficLimits::default(),
            error_page: None,
            maintenance_page: None,
        };
        let (id, name) = (AppId::fresh(), AppName::parse(name).unwrap());
        let roster = Roster::new(Standing::Up);
        Arc::new(App { id, name, policy, roster, traffic: None, load: None })
    }

    fn name(number: u32) -> DynoName {
        DynoName { process_type: ProcessType::web(), number }
    }

    fn dyno(number: u32, managed: bool) -> Arc<Dyno> {
        let addr = DynoAddr::parse(&format!("127.0.0.1:{}", 5000 + number)).unwrap();
        Dyno::new(name(number), addr, managed)
    }

    /// With a ring of web.1 to web.5, whoever is up.
    fn line_up(app: &App, dynos: &[&Arc<Dyno>]) -> Lineup {
        let place = |number| Place { label: name(number).to_string(), number };
        let ring = Ring::new((1..=5).map(place).collect()).map(Arc::new);
        let dynos = dynos.iter().copied().cloned().collect();
        let lineup = Lineup { dynos, canary: None, ring, standing: Standing::Up };
        publish(app, &lineup);
        lineup
    }

    fn publish(app: &App, lineup: &Lineup) {
        let listener = crate::model::ListenerPolicy {
            handshake: Duration::ZERO,
            head: Duration::ZERO,
            keepalive: Duration::ZERO,
            trusted_proxies: Vec::new(),
        };
        let (domain, default_app) = ("localhost".into(), None);
        let routes = Routes { version: 1, listener, apps: Vec::new(), domain, default_app };
        Publisher::new(Table::new(routes)).publish_lineup(&app.roster, lineup.clone());
    }

    /// The wish of a request with these field lines.
    fn wish(app: &App, fields: &str) -> Wish {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut slots = FieldSlots::new();
        let head = RequestHead::parse(head.as_bytes(), &mut slots).unwrap();
        Wish::of(app, &head, false, || None)
    }

    /// The wish of a client that has been given this cookie.
    fn wish_with(app: &App, set_cookie: &str) -> Wish {
        wish(app, &format!("Cookie: a=b; {}\r\n", set_cookie.split(';').next().unwrap()))
    }

    fn leased(wish: &Wish, seal: &Seal, app: &App, lineup: &Lineup, spared: &[u64]) -> Option<u32> {
        let lease = wish.lease(seal, app, lineup, spared, 50)?;
        Some(lease.dyno().name().number)
    }

    #[test]
    fn the_cookie_leads_back() {
        let (app, seal) = (app("shop", Affinity::Cookie), Seal::new(&KEY));
        let (one, two) = (dyno(1, true), dyno(2, true));
        let lineup = line_up(&app, &[&one, &two]);
        let first = wish(&app, "");
        assert_eq!(leased(&first, &seal, &app, &lineup, &[]), None);
        let cookie = first.cookie(&seal, &app, &two).unwrap();
        let attributes = "; Max-Age=86400; Path=/; HttpOnly; SameSite=Lax";
        assert!(cookie.ends_with(attributes), "{cookie}");
        let secure = Wish::Cookie { named: None, secure: true };
        let secure = secure.cookie(&seal, &app, &two).unwrap();
        assert_eq!(*secure, format!("{cookie}; Secure"));

        // Another worker, after a restart of dyno and daemon.
        let (seal, again) = (Seal::new(&KEY), dyno(2, true));
        let lineup = line_up(&app, &[&one, &again]);
        let second = wish_with(&app, &cookie);
        assert_eq!(leased(&second, &seal, &app, &lineup, &[]), Some(2));
        assert_eq!(second.cookie(&seal, &app, &again), None);
    }

    #[test]
    fn a_dyno_that_cannot_now_keeps_its_clients() {
        let (app, seal) = (app("shop", Affinity::Cookie), Seal::new(&KEY));
        let (one, two) = (dyno(1, true), dyno(2, true));
        let lineup = line_up(&app, &[&one, &two]);
        let cookie = wish(&app, "").cookie(&seal, &app, &two).unwrap();
        let wish = wish_with(&app, &cookie);
        assert_eq!(leased(&wish, &seal, &app, &lineup, &[two.id()]), None);
        two.quarantine(60);
        assert_eq!(leased(&wish, &seal, &app, &lineup, &[]), None);
        assert_eq!(wish.cookie(&seal, &app, &one), None);
        two.quarantine(50);
        assert_eq!(leased(&wish, &seal, &app, &lineup, &[]), Some(2));
        two.close();
        assert_eq!(leased(&wish, &seal, &app, &lineup, &[]), None);
        assert_eq!(wish.cookie(&seal, &app, &one), None);
        let lineup = line_up(&app, &[&one]);
        assert_eq!(leased(&wish, &seal, &app, &lineup, &[]), None);
        assert!(wish.cookie(&seal, &app, &one).unwrap().contains("=web.1."));
    }

    /// The same line-up with a canary for so many percent.
    fn canaried(app: &App, lineup: &Lineup, dyno: &Arc<Dyno>, percent: u32) -> Lineup {
        let canary = Canary { dyno: dyno.clone(), share: Hundredths(percent * 100) };
        let lineup = Lineup { canary: Some(canary), ..lineup.clone() };
        publish(app, &lineup);
        lineup
    }

    #[test]
    fn who_met_the_canary_stays_with_it_while_it_is_one_and_no_longer() {
        let (app, seal) = (app("shop", Affinity::Cookie), Seal::new(&KEY));
        let (one, two, next) = (dyno(1, true), dyno(2, true), dyno(1, true));
        let before = line_up(&app, &[&one, &two]);
        let old = wish(&app, "").cookie(&seal, &app, &one).unwrap();
        let lineup = canaried(&app, &before, &next, 5);
        let new = wish(&app, "").cookie(&seal, &app, &next).unwrap();
        assert_ne!(old, new);
        for (cookie, dyno) in [(&old, &one), (&new, &next)] {
            let wish = wish_with(&app, cookie);
            let lease = wish.lease(&seal, &app, &lineup, &[], 50).unwrap();
            assert_eq!(lease.dyno().id(), dyno.id());
            assert_eq!(wish.cookie(&seal, &app, dyno), None);
        }
        // It was turned back, or has its place: then its cookie is that of any dyno, and who has the old one has it.
        for lineup in [line_up(&app, &[&one, &two]), line_up(&app, &[&next, &two])] {
            let wish = wish_with(&app, &new);
            assert_eq!(leased(&wish, &seal, &app, &lineup, &[]), None);
            assert!(wish.cookie(&seal, &app, &lineup.dynos[0]).is_some());
            assert_eq!(leased(&wish_with(&app, &old), &seal, &app, &lineup, &[]), Some(1));
        }
    }

    #[test]
    fn a_part_of_the_addresses_is_the_canarys_and_they_are_always_the_same() {
        let (app, seal) = (app("shop", Affinity::Address), Seal::new(&KEY));
        let (one, two, next) = (dyno(1, true), dyno(2, true), dyno(1, true));
        let lineup = canaried(&app, &line_up(&app, &[&one, &two]), &next, 20);
        let mut of_canary = 0;
        for client in 0..5000_u32 {
            let wish = Wish::Client(std::net::IpAddr::from(client.to_be_bytes()).into());
            let led = || wish.lease(&seal, &app, &lineup, &[], 50).unwrap().dyno().id();
            let first = led();
            assert_eq!(led(), first);
            of_canary += u32::from(first == next.id());
            // One that has tried it goes where it went before.
            let spared = wish.lease(&seal, &app, &lineup, &[next.id()], 50).unwrap();
            assert_ne!(spared.dyno().id(), next.id());
        }
        // A thousand, and eight standard deviations.
        assert!((774..=1226).contains(&of_canary), "{of_canary}");
    }

    #[test]
    fn nobody_chooses_a_dyno() {
        let (app, other_app) = (app("shop", Affinity::Cookie), app("blog", Affinity::Cookie));
        let seal = Seal::new(&KEY);
        let (one, two) = (dyno(1, true), dyno(2, true));
        let lineup = line_up(&app, &[&one, &two]);
        let good = wish(&app, "").cookie(&seal, &app, &two).unwrap();
        for (what, cookie) in [
            ("another dyno", good.replace("web.2", "web.1")),
            ("another key", {
                let seal = Seal::new(&[8; 32]);
                wish(&app, "").cookie(&seal, &app, &two).unwrap().into()
            }),
            ("another app", {
                let seal = Seal::new(&KEY);
                wish(&app, "").cookie(&seal, &other_app, &two).unwrap().into()
            }),
            ("another address", {
                let elsewhere = dyno(2, false);
                wish(&app, "").cookie(&seal, &app, &elsewhere).unwrap().into()
            }),
            ("no mark", "dynomesh-session-affinity=web.2.".into()),
            ("half a mark", good[..50].into()),
            ("no number", good.replace("web.2", "web.")),
            ("a sign", good.replace("web.2", "web.+2")),
            ("another name", good.replace("dynomesh", "heroku")),
        ] {
            let wish = wish_with(&app, &cookie);
            assert_eq!(leased(&wish, &seal, &app, &lineup, &[]), None, "{what}");
            let fresh = wish.cookie(&seal, &app, &two);
            assert_eq!(fresh.as_ref(), Some(&good), "{what}");
        }
    }

    #[test]
    fn an_address_leads_to_one_dyno_and_past_it_to_the_next() {
        let (app, seal) = (app("shop", Affinity::Address), Seal::new(&KEY));
        let (one, two, three) = (dyno(1, true), dyno(2, true), dyno(3, true));
        let lineup = line_up(&app, &[&one, &two, &three]);
        let without_two = line_up(&app, &[&one, &three]);
        let mut seen = [0; 4];
        for client in 0..200_u32 {
            let wish = Wish::Client(std::net::IpAddr::from(client.to_be_bytes()).into());
            let lease = |lineup, spared: &[u64]| leased(&wish, &seal, &app, lineup, spared);
            let own = lease(&lineup, &[]).unwrap();
            seen[own as usize] += 1;
            assert_eq!(lease(&lineup, &[]), Some(own));
            let next = lease(&lineup, &[two.id()]).unwrap();
            assert_eq!(next != own, own == 2, "only its own clients pass over web.2");
            assert_eq!(lease(&without_two, &[]), Some(next));
            let all = [one.id(), two.id(), three.id()];
            assert_eq!(lease(&lineup, &all), None);
            assert_eq!(wish.cookie(&seal, &app, &one), None);
        }
        assert!(seen[1..].iter().all(|clients| *clients > 20), "{seen:?}");
    }

    #[test]
    fn off_wishes_nothing() {
        let app = app("shop", Affinity::Off);
        let cookie = "Cookie: dynomesh-session-affinity=web.2.00000000000000000000000000000000\r\n";
        assert_eq!(wish(&app, cookie), Wish::Any);
    }
}
