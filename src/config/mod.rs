//! The configuration: the file as written, then as used.

pub mod limits; // every limit that is not in the file
mod load; // the file's text → what follows
mod read; // text → as written, with errors in our own form
mod written; // the file, key by key
mod resolve; // as written → as used
mod resolve_endpoints; // the same for where the router listens
mod resolve_certs; // the same for certificates
mod resolve_logs; // the same for where lines go
mod resolve_dynos; // the same for what holds for every dyno
mod resolve_sizes; // the same for sizes of dynos
mod resolve_app; // the same for one app
mod said; // what of an app the file decides
mod resolve_autoscale; // the same for how their numbers follow its requests
mod resolve_guard; // the same for what its releases are judged by
mod resolve_jobs; // the same for what it runs by the clock
mod resolve_upkeep; // the same for how its dynos are looked after
mod claims; // which app a domain belongs to
mod values; // single values: timers, addresses, choices
mod defaults; // what holds where the file says nothing
mod used; // the configuration as the rest of the program uses it
pub mod procfile; // process types and their commands
pub mod env_file; // foreman's .env
mod config_var; // names, and how values stay hidden
mod duration; // 1h30m
mod bytes; // 512MB
pub mod text_file; // small files, bounded
mod nearest; // did you mean
mod findings; // collects problems and warnings
mod problem; // one of them: file, line, key, what would be right
mod summary; // the configuration as text values without secrets, to be shown and sent
mod describe; // what serve would do
mod diff; // what a reload would change
#[cfg(test)]
mod fixture; // configurations for tests
#[cfg(test)]
mod example; // config/example.toml stays complete and true

pub use config_var::check_config_var;
pub use diff::{Change, Diff, Mark, diff};
pub(crate) use duration::print as print_duration;
pub(crate) use findings::COMMANDS;
pub use load::{SLUG_TREE, SLUGS_DIR, Source, default_path, load, slug_dir};
pub use problem::{ConfigError, ConfigProblem, Remark};
pub use said::{Said, drain_key};
pub use summary::{AppSummary, SourceSummary, Summary};
pub use used::{
    AccessLog, AcmeConfig, AdminConfig, AppConfig, AppSource, CertFiles, CertSource, Config,
    Deploy, DynosConfig, HealthCheck, IsolationWanted, JobConfig, LogFiles, LogsConfig, ManagedApp,
    NetworkWanted, Notes, RouterConfig, SupervisorTimeouts, Upkeep,
};
