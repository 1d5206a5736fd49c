//! The atomics that `lease.rs` is written in. `tests/loom_lease.rs` compiles `lease.rs` against loom's.

pub(crate) use std::sync::atomic::{AtomicU32, Ordering};
