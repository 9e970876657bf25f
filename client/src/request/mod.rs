//! Requests with their settings: each is made by a method of [`Collection`](crate::Collection), told what differs from the
//! defaults, and awaited.

mod create;
mod get;
mod reply;
mod scan;
mod search;
mod write;

pub use create::CreateRequest;
pub use get::{GetOneRequest, GetRequest};
pub use reply::Reply;
pub use scan::{Pages, Points, SCAN_PAGE_POINTS, ScanRequest};
pub use search::{DEFAULT_K, SearchRequest};
pub use write::{DeleteRequest, EachRequest, PutRequest, WriteRequest};
