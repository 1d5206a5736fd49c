//! The promises, held against the real binary: real sockets, real processes, real time with short limits.
//!
//! Each test is a sentence about what dynomesh does. Where the specification leaves a choice, the test's
//! comment says how it was read.

mod support;

mod routing; // which dyno a request goes to, and what comes back
mod commands; // what people ask the running daemon
mod service_manager; // systemd: sockets that it opens, states that it hears of
