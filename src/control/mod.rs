//! What people and their tools ask the running daemon.
