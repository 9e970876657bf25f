//! The client against nodes in this process that answer as each test needs it, over real QUIC.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod bulk;
mod collections;
mod fake;
mod repeats;
mod requests;
mod retries;
mod scans;
mod writes;
