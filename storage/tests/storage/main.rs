//! The storage crate from outside: every disk, every crash, every flipped byte.

#![allow(missing_docs, clippy::unwrap_used)]

mod crash;
mod damage;
mod disk;
mod file;
mod format;
mod full;
mod inspect;
mod log;
mod snapshot;
mod world;
