//! The configuration as written: one struct per table of the file, each value with its place in the text.
//!
//! Invariant: no `Debug`, since config vars pass through here in the clear. What the keys mean and what
//! holds where one is absent is in `config/example.toml` and in `defaults.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use toml::Spanned;

use crate::config::{bytes, duration};

pub(crate) type Optional<T> = Option<Spanned<T>>;
pub(crate) type List = Optional<Vec<Spanned<String>>>;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Written {
    pub(crate) router: Table<Router>,
    pub(crate) admin: Table<Admin>,
    pub(crate) state: Table<State>,
    pub(crate) dynos: Table<Dynos>,
    pub(crate) logs: Table<Logs>,
    pub(crate) certs: Vec<Spanned<Table<Certs>>>,
    pub(crate) acme: Optional<Table<Acme>>,
    pub(crate) sizes: Table<BTreeMap<Spanned<String>, Spanned<Table<Size>>>>,
    pub(crate) apps: Table<BTreeMap<Spanned<String>, Table<App>>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Router {
    pub(crate) http: List,
    pub(crate) https: List,
    pub(crate) proxy_protocol: List,
    pub(crate) domain: Optional<String>,
    pub(crate) default_app: Optional<String>,
    pub(crate) workers: Optional<usize>,
    pub(crate) access_log: Optional<String>,
    pub(crate) trusted_proxies: List,
    pub(crate) timeouts: Table<RouterTimeouts>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RouterTimeouts {
    pub(crate) connect: Optional<DurationText>,
    pub(crate) first_byte: Optional<DurationText>,
    pub(crate) rolling: Optional<DurationText>,
    pub(crate) hold: Optional<DurationText>,
    pub(crate) linger: Optional<DurationText>,
    pub(crate) drain: Optional<DurationText>,
    pub(crate) ws_drain: Optional<DurationText>,
    pub(crate) dyno_keepalive: Optional<DurationText>,
    pub(crate) handshake: Optional<DurationText>,
    pub(crate) head: Optional<DurationText>,
    pub(crate) keepalive: Optional<DurationText>,
    pub(crate) stop: Optional<DurationText>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    pub(crate) http: Optional<String>,
    pub(crate) api: Optional<String>,
    pub(crate) api_names: List,
    pub(crate) socket: Optional<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) dir: Optional<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Dynos {
    pub(crate) isolation: Optional<String>,
    pub(crate) uids: Optional<String>,
    pub(crate) network: Optional<String>,
    pub(crate) addresses: Optional<String>,
    pub(crate) expose: List,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Logs {
    pub(crate) dir: Optional<String>,
    pub(crate) max_size: Optional<BytesText>,
    pub(crate) keep: Optional<u32>,
    pub(crate) ca_file: Optional<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Certs {
    pub(crate) cert: Optional<String>,
    pub(crate) key: Optional<String>,
    pub(crate) dir: Optional<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Acme {
    pub(crate) directory: Optional<String>,
    pub(crate) contact: List,
    pub(crate) agree_to_terms: Optional<bool>,
    pub(crate) renew_before: Optional<DurationText>,
    pub(crate) ca_file: Optional<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Size {
    pub(crate) memory: Optional<BytesText>,
    pub(crate) cpu_share: Optional<u32>,
    pub(crate) dedicated: Option<bool>,
    pub(crate) cpus: Optional<Number>,
    pub(crate) processes: Optional<u32>,
    pub(crate) sleep_after: Optional<DurationText>,
    pub(crate) price: Optional<Number>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct App {
    pub(crate) dir: Optional<String>,
    pub(crate) dynos: List,
    pub(crate) domains: List,
    pub(crate) formation: Optional<BTreeMap<Spanned<String>, Spanned<u32>>>,
    pub(crate) autoscale: Optional<BTreeMap<Spanned<String>, Spanned<Table<Autoscale>>>>,
    pub(crate) size: Optional<String>,
    pub(crate) sizes: Optional<BTreeMap<Spanned<String>, Spanned<String>>>,
    pub(crate) deploy: Optional<String>,
    pub(crate) guard: Optional<Table<Guard>>,
    pub(crate) canary: Optional<String>,
    pub(crate) canary_for: Optional<DurationText>,
    pub(crate) keep_warm: Optional<DurationText>,
    pub(crate) recycle_on_r14: Optional<DurationText>,
    pub(crate) runtime_metrics: Optional<bool>,
    pub(crate) balance: Optional<String>,
    pub(crate) expect: Optional<String>,
    pub(crate) backlog: Optional<u32>,
    pub(crate) maintenance: Optional<bool>,
    pub(crate) acme: Option<bool>,
    pub(crate) force_https: Optional<bool>,
    pub(crate) http2_to_dyno: Option<bool>,
    pub(crate) affinity: Optional<String>,
    pub(crate) slow_start: Optional<DurationText>,
    pub(crate) health: Optional<String>,
    pub(crate) health_interval: Optional<DurationText>,
    pub(crate) health_timeout: Optional<DurationText>,
    pub(crate) unhealthy_after: Optional<u32>,
    pub(crate) restart_after: Optional<u32>,
    pub(crate) cycle: Optional<DurationText>,
    pub(crate) freeze_after: Optional<DurationText>,
    pub(crate) limits: Table<TrafficLimits>,
    pub(crate) client_limits: Table<TrafficLimits>,
    pub(crate) error_page: Optional<String>,
    pub(crate) maintenance_page: Optional<String>,
    pub(crate) env_file: Optional<String>,
    pub(crate) config: Optional<BTreeMap<Spanned<String>, Spanned<String>>>,
    pub(crate) timeouts: Table<AppTimeouts>,
    pub(crate) drains: List,
    pub(crate) jobs: Vec<Spanned<Table<Job>>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Autoscale {
    pub(crate) min: Optional<u32>,
    pub(crate) max: Optional<u32>,
    pub(crate) target: Optional<String>,
    pub(crate) up_after: Optional<DurationText>,
    pub(crate) down_after: Optional<DurationText>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Guard {
    pub(crate) errors: Optional<String>,
    pub(crate) p95: Optional<String>,
    pub(crate) within: Optional<DurationText>,
    pub(crate) requests: Optional<u32>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Job {
    pub(crate) name: Optional<String>,
    pub(crate) command: Optional<String>,
    pub(crate) every: Optional<DurationText>,
    pub(crate) at: Optional<String>,
    pub(crate) cron: Optional<String>,
    pub(crate) size: Optional<String>,
    pub(crate) overlap: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AppTimeouts {
    pub(crate) connect: Optional<DurationText>,
    pub(crate) first_byte: Optional<DurationText>,
    pub(crate) rolling: Optional<DurationText>,
    pub(crate) hold: Optional<DurationText>,
    pub(crate) linger: Optional<DurationText>,
    pub(crate) drain: Optional<DurationText>,
    pub(crate) ws_drain: Optional<DurationText>,
    pub(crate) dyno_keepalive: Optional<DurationText>,
    pub(crate) boot: Optional<DurationText>,
    pub(crate) exit: Optional<DurationText>,
    pub(crate) cool_off: Optional<DurationText>,
    pub(crate) cool_off_max: Optional<DurationText>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TrafficLimits {
    pub(crate) requests_per_second: Optional<u32>,
    pub(crate) connections: Optional<u32>,
    pub(crate) in_flight: Optional<u32>,
}

/// A table and nothing else: serde by itself would also fill a struct from an array, by position.
#[derive(Default)]
pub(crate) struct Table<T>(T);

impl<T> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(Table)
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A string where a duration belongs: tells somebody who wrote `30` how `"30s"` is written.
pub(crate) struct DurationText(pub(crate) String);

/// A string where a number of bytes belongs.
pub(crate) struct BytesText(pub(crate) String);

macro_rules! text {
    ($name:ident, $expected:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E>(self, text: &str) -> Result<$name, E> {
                        Ok($name(text.to_owned()))
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

text!(DurationText, duration::EXPECTED);
text!(BytesText, bytes::EXPECTED);

/// A number, whole or not: both `7` and `2.5`.
pub(crate) struct Number(pub(crate) f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number like 7 or 2.5")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }
        }

        deserializer.deserialize_any(Digits)
    }
}
