//! The fast profile: beside each node's links lie one-bit codes of the neighbours there, so that one sequence of cache
//! lines estimates all of them (SymphonyQG: Gou, Gao, Xu, Long 2025; the codes are RaBitQ's: Gao, Long 2024).
//!
//! A walk asks three times, each time more closely and of fewer nodes: the codes of *edges* say which neighbours may be
//! near, at one bit a dimension; the codes of *nodes*, four bits a dimension, say how near those are, and order the
//! walk; the vectors themselves rank what is left at its end.
//!
//! An edge's code holds the signs of what the neighbour `o` is away from the node `c`, after a projection that the
//! [`Model`] learned. With `r` that difference, projected, and `s` its signs, the squared distance to a query `q` is
//! about
//!
//! ```text
//! |q - c|^2 + |o - c|^2 - 2 <r, q - c>,   where   <r, q - c>  is about  |r|^2 / <s, r> * <s, q - c>
//!     = |q - c|^2  +  a  +  b <s, q>      with    b = -2 slope |r|^2 / <s, r>,    a = |o - c|^2 - b <s, c>
//! ```
//! The first term is known when a walk expands `c`; `a` and `b` are stored with the code; and `<s, q>` comes of a table
//! of the query's.
//!
//! Model and codes make a [`Generation`]. When there are many more vectors than it was learned from, a new one is made
//! and put in its place; searches that are under way end with the one that they began with.

mod codes;
mod edge;
mod generation;
mod layout;
mod model;
mod walk;
mod warming;

pub(crate) use codes::{Fast, FastMemory};
pub(crate) use edge::Edge;
pub(crate) use generation::{FastQuery, Generation, Projections};
pub(crate) use layout::Layout;
pub(crate) use model::{Model, Shape};
pub(crate) use walk::Coded;
pub(crate) use warming::Warming;
