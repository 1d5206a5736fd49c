//! What runs first inside a dyno.
