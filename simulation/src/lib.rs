//! Whole meshes of vecino in one thread and in virtual time, and judges of what they did.
//!
//! [`run()`] makes a mesh of the decisions of real nodes ([`vecino_mesh::node`]) and the clients of the client library
//! ([`vecino_mesh::client`]) out of one seed, lets them work while things go wrong, and judges what came of it. The same
//! seed gives the same run. What is written down of a run is judged by [`checkers`], which know nothing of how it came
//! about.

pub mod checkers;
mod client;
mod host;
mod links;
mod plan;
mod record;
mod replica;
mod run;
mod scenario;
mod value;
mod wire;
mod world;

pub use plan::{Deed, Fault, Options};
pub use record::Violation;
pub use run::{Report, run, shrink};
pub use scenario::Scenario;
