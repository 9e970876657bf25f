//! The client against nodes in this process that answer as each test needs it, over real QUIC.

mod bulk;
mod fake;
mod requests;
mod retries;
