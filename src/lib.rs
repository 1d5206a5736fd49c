//! dynomesh: a routing mesh and a dyno manager in one process.
//!
//! The modules, bottom floor first. A module imports only from floors below its own;
//! `tests/tidy.rs` holds that. Fuzz targets are of the lower floors, and built with their instruments in a third of the
//! time without the others.

// 0
pub mod model; // the words of the field as types: app, domain, formation, dyno. No I/O, no clock
mod private_file; // files that only their owner reads
mod random; // numbers that differ, and those that nobody may guess
mod hexadecimal; // bytes as text
mod back_off; // how long to wait before something is tried again
mod wall_clock; // the time since 1970
pub mod shutdown; // how everything ends: gracefully, then now

// 1
pub mod config; // the file as written, the file as used, and every limit on one page
pub mod table; // the one thing that router and supervisor share
pub mod telemetry; // lines out: one writer thread per target
mod outside; // servers that others run, and how they are reached
pub mod wire; // HTTP/1.1 as bytes. No sockets, no clock

// 2
pub mod drains; // logs, sent elsewhere
pub mod certs; // certificates by name
pub mod store; // what is remembered from one daemon to the next
pub mod slugs; // what was deployed, as directories
pub mod init; // what runs first inside a dyno
pub mod hello; // the example app

// 3
#[cfg(not(fuzzing))]
pub mod router; // a request's life
#[cfg(not(fuzzing))]
pub mod supervisor; // a dyno's life

// 4
#[cfg(not(fuzzing))]
pub mod scheduler; // what apps run by the clock
#[cfg(not(fuzzing))]
pub mod control; // what people ask the running daemon

// 5
#[cfg(not(fuzzing))]
pub mod daemon; // builds all in order, stops in reverse

// 6
#[cfg(not(fuzzing))]
pub mod cli; // what a person types
