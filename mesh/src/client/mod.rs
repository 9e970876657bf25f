//! What a client decides: whom to ask, when to ask another beside it, when to ask again, and what a write came to.
//!
//! The client library carries it out, and so do the clients of the simulation.

mod asking;
mod attempts;
mod nodes;
mod write;

pub use asking::{Answered, Arrival, Asking, Call, Failed, Hedge, Plan, Task, ask};
pub use attempts::{ATTEMPTS_MAX, Attempts, Effect, Next, SETBACKS_MAX};
pub use nodes::{Nodes, PROBE_EVERY};
pub use write::{Said, Step, Write, write};
