//! The configuration: the file as written, then as used.

pub mod limits; // every limit that is not in the file
mod used; // the configuration as the rest of the program uses it

pub use used::{
    AccessLog, AdminConfig, AppConfig, AppSource, Config, ManagedApp, RouterConfig,
    SupervisorTimeouts,
};
