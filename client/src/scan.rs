//! Reading a whole collection.

use vecino_model::{ScanCursor, StoredPoint};
use vecino_net::message::{Scan, ScanReply};

use crate::{Client, ClientError};

/// The pages of a collection, in ring order; made by [`Client::scan`].
///
/// Each page is read when it is asked for. Points that are written meanwhile may or may not appear; every point that is
/// there from before the first page until after the last appears once.
#[derive(Clone, Debug)]
#[must_use = "nothing is read until next() is called"]
pub struct Pages {
    client: Client,
    request: Scan,
    done: bool,
}

impl Pages {
    pub(crate) fn new(client: Client, request: Scan) -> Self {
        Self { client, request, done: false }
    }

    /// The next page, which has at least one point; absent behind the last.
    ///
    /// # Errors
    /// When a page cannot be read. The call may be repeated: it reads the same page.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredPoint>>, ClientError> {
        while !self.done {
            let ScanReply { points, next } = self.client.scan_page(&self.request).await?;
            self.done = next.is_none();
            if next.is_some() {
                self.request.after = next;
            }
            if !points.is_empty() {
                return Ok(Some(points));
            }
        }
        Ok(None)
    }

    /// Where the next page begins, to go on from there [another time](crate::ScanOptions::after); absent before the
    /// first page and behind the last.
    pub fn cursor(&self) -> Option<&ScanCursor> {
        if self.done { None } else { self.request.after.as_ref() }
    }
}
