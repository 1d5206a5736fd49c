//! By which names the port is asked: its own, and that of a host of Heroku's which the heroku CLI asks by its name,
//! whatever it was told.

use crate::config::AdminConfig;
use crate::model::Host;

/// Where autoscaling is asked for (heroku CLI: `ps:autoscale:enable`).
const METRICS: &str = "api.metrics.heroku.com";

/// Which part of the API is meant by a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Part {
    /// Heroku's Platform API.
    Platform,
    /// What Heroku has on a host of its own. Only who takes this port for a proxy gets there, and comes from this machine.
    Metrics,
}

impl Part {
    /// All names and addresses by which it is asked.
    pub(in crate::control) fn names(self, admin: &AdminConfig) -> Vec<Box<str>> {
        match self {
            Self::Platform => admin.names_of_api(),
            Self::Metrics => vec![METRICS.into()],
        }
    }

    /// The one that this host is, at whatever port.
    pub(in crate::control) fn of(host: &str, admin: &AdminConfig) -> Option<Self> {
        [Self::Platform, Self::Metrics].into_iter().find(|it| it.is(host, admin))
    }

    /// Whether this host is it, at whatever port.
    pub(in crate::control) fn is(self, host: &str, admin: &AdminConfig) -> bool {
        let names = self.names(admin);
        match Host::parse(host) {
            Some(Host::Name(name)) => names.iter().any(|it| **it == *name),
            Some(Host::Address(addr)) => names.iter().any(|it| **it == *addr.to_string()),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_part_or_none() {
        let admin = AdminConfig {
            http: None,
            api: None,
            api_names: vec!["mesh.example.com".into()],
            socket: "control.sock".into(),
        };
        let check = |host: &str, expected: Option<Part>| {
            assert_eq!(Part::of(host, &admin), expected, "{host}");
        };
        for host in
            ["localhost", "Localhost:5000", "127.0.0.1:6000", "[::1]:5000", "mesh.example.com"]
        {
            check(host, Some(Part::Platform));
        }
        for host in ["api.metrics.heroku.com", "API.metrics.heroku.com:5000"] {
            check(host, Some(Part::Metrics));
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com:5000",
            "10.0.0.1",
            "::1",
            "api.metrics.herokai.com:5000",
            "metrics.heroku.com",
        ] {
            check(host, None);
        }
    }
}
