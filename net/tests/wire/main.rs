//! The transport over real QUIC on loopback, with certificates made for each test.

mod calls;
mod child;
mod document;
mod fixture;
mod gossip;
mod membership;
mod raw;
mod refusals;
mod restart;
