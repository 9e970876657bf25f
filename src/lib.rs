//! The library behind the binary `vecino`: command line, files, backup, doctor, demonstration.
//!
//! Applications use the crate `vecino-client`; a node as a library is the crate `vecino-node`.

pub mod backup;
pub mod cli;
pub mod colors;
pub mod demo;
pub mod doctor;
pub mod files;
pub mod process;
