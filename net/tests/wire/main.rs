//! The transport over real QUIC on loopback, with certificates made for each test.

// A test may unwrap; the lint's own exception covers test functions only, not what they share.
#![allow(clippy::unwrap_used)]

mod calls;
mod child;
mod clocks;
mod document;
mod fixture;
mod gossip;
mod membership;
mod overload;
mod raw;
mod refusals;
mod restart;
mod streams;
