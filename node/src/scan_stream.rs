//! A scan as one stream: a collection page by page, in ring order. Each page is a request of its own, which the node
//! decides about.

use std::time::Duration;

use tokio::time::Instant;
use vecino_net::error::RpcError;
use vecino_net::message::ScanStream;
use vecino_net::rpc::{ChunkSender, RequestContext};

use crate::driver::Driver;

/// How long the replicas may take for one page of a stream, which as a whole may last for an hour.
const PAGE_WAIT: Duration = Duration::from_secs(30);

/// Reads page after page to the end of the collection. The next page is read while one is on its way.
pub(crate) async fn scan_stream(
    driver: &Driver,
    context: &RequestContext,
    request: ScanStream,
    chunks: &ChunkSender,
) -> Result<(), RpcError> {
    let ScanStream { mut scan } = request;
    loop {
        let mut context = context.clone();
        context.deadline = context.deadline.min(Instant::now() + PAGE_WAIT);
        let page = driver.ask(&context, scan.clone()).await?;
        chunks.send::<ScanStream>(&page).await?;
        match page.next {
            Some(next) => scan.after = Some(next),
            None => return Ok(()),
        }
    }
}
