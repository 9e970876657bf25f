//! Runs of whole meshes: many seeds with the rules as they are, seeds that show what each rule is for, and what happens in
//! single situations.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod plants;
mod scenarios;
mod seeds;
