//! Files of vectors: readers that stream rows and never hold a whole file.
//!
//! [`VectorFile`] reads `.fvecs`, `.bvecs`, `.npy` and `.jsonl`; [`truth`] reads the row numbers of exact answers from
//! `.ivecs` and `.npy`; [`json`] is where JSON and the wire model meet. Nothing here knows of collections or nodes.

pub mod error;
pub mod json;
mod jsonl;
mod npy;
mod row;
pub mod truth;
mod vecs;
mod vector_file;

pub use error::{FileError, Problem};
pub use row::Row;
pub use vector_file::VectorFile;
