//! Builds all in order, stops in reverse.
