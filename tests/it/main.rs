//! The promises, held against the real binary: real sockets, real processes, real time with short limits.
//!
//! Each test is a sentence about what dynomesh does. Where the specification leaves a choice, the test's
//! comment says how it was read.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

mod routing; // which app and dyno a request goes to, and what is tried again
mod timeouts; // what ends when
mod proxy_protocol; // who the client is, told by a balancer
mod headers; // the heads that dynos and clients see
mod smuggling; // requests that no dyno may ever see
mod bodies; // every framing, both ways
mod interim; // 1xx and Expect
mod connections; // kept, pipelined, half-closed, given up
mod upgrade; // pipes
mod tls; // HTTPS: handshakes, and all of the above under it
mod https_only; // what plain HTTP is told, and what a certificate is for
mod http2; // many requests on one connection
mod http2_trailers; // what comes behind a body, however it is written
mod http2_timeouts; // what ends when, of streams and of their connection
mod http2_floods; // frames that only cost
mod http2_websocket; // pipes in streams
mod affinity; // the same dyno again
mod traffic_limits; // how much may be asked
mod refusals; // the answers of the router itself
mod log; // the line per request, and the counters
mod commands; // what people ask the running daemon
mod service_manager; // systemd: sockets that it opens, states that it hears of
mod reload; // one configuration for another
mod certs; // certificates by name
mod acme; // automatic certificates
mod dynos; // dynos that dynomesh runs, and their faults
mod rollouts; // one release for another
mod deploys; // what is in a directory becomes what an app runs
mod health; // dynos that are asked how they are
mod sleep; // apps that sleep, dynos that are frozen
mod autoscale; // numbers of dynos that follow the requests
mod sizes; // what dynos may take
mod init; // what runs inside a dyno, by itself
mod adoption; // dynos that outlive the daemon
mod lives; // dynos that are replaced, and inits that hang
mod stated; // what commands say, beside what the file says
mod ps; // dynos as commands show and change them
mod logs; // what apps said, read back, followed and sent elsewhere
mod usage; // how long dynos ran
mod one_offs; // dynos for one command
mod api_port; // the Platform API over the network, and the heroku CLI's way to them
mod monitors; // numbers of dynos that follow the requests, as the heroku CLI asks for it
mod heroku; // the heroku CLI, by dynomesh heroku
mod jobs; // what apps run by the clock
mod isolation; // what dynos cannot reach
mod network; // the same of dynos with networks of their own
mod operator; // start, check, stop
