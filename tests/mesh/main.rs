//! The whole node, as its users meet it: processes of the real binary, killed for real, asked through the client library
//! and the command line.

#![allow(clippy::duplicate_mod, reason = "each example has the file with its client as a module")]
#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod backup;
mod command_line;
mod consistency;
mod crashes;
mod demo;
mod doctor;
mod examples;
mod faults;
mod histories;
mod joining;
mod lab;
mod limits;
mod old_folders;
mod recovery;
mod refusals;
