//! Tables and dynos to measure with.

use std::sync::Arc;
use std::time::Duration;

use dynomesh::model::{
    Affinity, AppName, AppPolicy, AppTimeouts, Balance, Domain, DynoAddr, DynoName, Expect,
    ListenerPolicy, ProcessType, TrafficLimits,
};
use dynomesh::table::{App, AppId, Dyno, Lineup, Roster, Routes, Standing};

/// An app with one domain, `shop-NUMBER.example.com`.
pub fn app(number: usize, roster: Arc<Roster>) -> (Arc<App>, Vec<Domain>) {
    let name = AppName::parse(&format!("shop-{number}")).expect("a good name");
    let domain = Domain::parse(&domain(number)).expect("a good domain");
    let app = App { id: AppId::fresh(), name, policy: policy(), roster, traffic: None, load: None };
    (Arc::new(app), vec![domain])
}

/// The domain of the app with this number.
pub fn domain(number: usize) -> String {
    format!("shop-{number}.example.com")
}

/// What a table of these apps is made from.
pub fn routes(apps: Vec<(Arc<App>, Vec<Domain>)>) -> Routes {
    let second = Duration::from_secs(1);
    let listener = ListenerPolicy {
        handshake: second,
        head: second,
        keepalive: second,
        trusted_proxies: Vec::new(),
    };
    Routes { version: 1, listener, apps, domain: "localhost".into(), default_app: None }
}

/// A line-up of `count` dynos that are up.
pub fn lineup(count: u32) -> Lineup {
    let dynos = (1..=count).map(dyno).collect();
    Lineup { dynos, canary: None, ring: None, standing: Standing::Up }
}

/// `web.NUMBER`.
pub fn dyno(number: u32) -> Arc<Dyno> {
    let addr = DynoAddr::parse("127.0.0.1:5000").expect("a good address");
    Dyno::new(DynoName { process_type: ProcessType::web(), number }, addr, false)
}

fn policy() -> AppPolicy {
    let second = Duration::from_secs(1);
    let timeouts = AppTimeouts {
        hold: second,
        connect: second,
        first_byte: second,
        rolling: second,
        linger: second,
        drain: second,
        ws_drain: second,
        dyno_keepalive: second,
    };
    AppPolicy {
        timeouts,
        balance: Balance::P2c,
        slow_start: None,
        expect: Expect::Router,
        maintenance: false,
        backlog: 200,
        force_https: false,
        http2_to_dyno: false,
        affinity: Affinity::Off,
        limits: TrafficLimits::default(),
        client_limits: TrafficLimits::default(),
        error_page: None,
        maintenance_page: None,
    }
}
