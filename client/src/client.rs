//! The client: one method for each request that anyone may make.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;
use vecino_model::{CollectionSchema, Outcome, Point, PointId, StoredPoint};
use vecino_net::endpoint::Endpoint;
use vecino_net::error::{ErrorCode, RpcError};
use vecino_net::message::{
    CollectionInfo, CreateCollection, DescribeCollection, DropCollection, Dropped, Get, ListCollections, RingInfo,
    RingReply, Rpc, Scan, ScanReply, SearchReply, SnapshotReport, Status, StatusReply, TakeSnapshot,
};

use crate::attempts::{Attempts, Effect, Next};
use crate::options::{GetOptions, ScanOptions, SearchRequest, WriteOptions};
use crate::write::{self, Batch};
use crate::{BulkLoader, BulkOptions, ClientBuilder, ClientError, Pages};

/// How long [`Client::close`] waits for requests of other clones.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A connection to a mesh, through any of its nodes. Cheap to clone; clones share their connections.
///
/// Requests that fail are made again, at the next address where there is one, as long as that is safe and time is left:
/// reads always; puts and deletes too, unless [`WriteOptions::repeat_unknown`] says otherwise; creating and dropping
/// collections only where it is certain that nothing happened.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    nodes: Vec<SocketAddr>,
    /// Index of the node that answered last: it is asked first.
    preferred: AtomicUsize,
}

impl Client {
    /// Begins making a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn new(endpoint: Endpoint, nodes: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { shared: Arc::new(Shared { endpoint, nodes, preferred: AtomicUsize::new(0) }), timeout }
    }

    /// The same client, whose requests may take this long, all attempts together.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), timeout }
    }

    /// The addresses that it knows, in the order in which they were given.
    pub fn nodes(&self) -> &[SocketAddr] {
        &self.shared.nodes
    }

    /// Creates a collection on every node.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyExists`] where the name is in use. When whether it was created is
    /// [unknown](ClientError::is_unknown), [`describe`](Self::describe) tells.
    pub async fn create_collection(
        &self,
        name: impl Into<String>,
        schema: CollectionSchema,
    ) -> Result<CollectionInfo, ClientError> {
        self.call(&CreateCollection { name: name.into(), schema }, Effect::SingleWrite).await
    }

    /// Drops a collection and everything in it.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is none of that name.
    pub async fn drop_collection(&self, name: impl Into<String>) -> Result<Dropped, ClientError> {
        self.call(&DropCollection { name: name.into() }, Effect::SingleWrite).await
    }

    /// All collections.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>, ClientError> {
        self.call(&ListCollections {}, Effect::Read).await
    }

    /// One collection.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is none of that name.
    pub async fn describe(&self, name: impl Into<String>) -> Result<CollectionInfo, ClientError> {
        self.call(&DescribeCollection { name: name.into() }, Effect::Read).await
    }

    /// Writes points, at most [`vecino_model::limits::BATCH_POINTS_MAX`]; for more there is the
    /// [`bulk_loader`](Self::bulk_loader). The answer has an outcome for each, in their order.
    ///
    /// Points that too few replicas took are written again a few times while time is left, those whose outcome the mesh
    /// cannot tell unless [`WriteOptions::repeat_unknown`] says otherwise. What is then still [`Outcome::Unavailable`]
    /// was not written; what is still [`Outcome::Unknown`] may or may not be there.
    ///
    /// # Errors
    /// When the batch as a whole was refused or not answered.
    pub async fn put(
        &self,
        collection: impl Into<String>,
        points: Vec<Point>,
        options: WriteOptions,
    ) -> Result<Vec<Outcome>, ClientError> {
        let put = vecino_net::message::Put { collection: collection.into(), points, level: options.level };
        self.write(&put, options).await
    }

    /// Deletes points; one that is absent counts as deleted. The answer has an outcome for each, in their order.
    ///
    /// # Errors
    /// When the batch as a whole was refused or not answered.
    pub async fn delete(
        &self,
        collection: impl Into<String>,
        ids: Vec<PointId>,
        options: WriteOptions,
    ) -> Result<Vec<Outcome>, ClientError> {
        let delete = vecino_net::message::Delete { collection: collection.into(), ids, level: options.level };
        self.write(&delete, options).await
    }

    /// Reads points; the answer has an entry for each id, in their order, which is absent where the point is.
    ///
    /// # Errors
    /// When there is no such collection, or too few replicas answer.
    pub async fn get(
        &self,
        collection: impl Into<String>,
        ids: Vec<PointId>,
        options: GetOptions,
    ) -> Result<Vec<Option<StoredPoint>>, ClientError> {
        let GetOptions { level, with_vectors } = options;
        let get = Get { collection: collection.into(), ids, level, with_vectors };
        let (found, node) = self.ask(&get, Effect::Read, Instant::now() + self.timeout).await?;
        if found.len() != get.ids.len() {
            return Err(nonsense::<Get>(node, format_args!("{} points for {} ids", found.len(), get.ids.len())));
        }
        Ok(found)
    }

    /// Finds the points that are most like a vector, or like a stored point.
    ///
    /// # Errors
    /// When there is no such collection or point, or a part of the ring cannot be searched and a partial answer was
    /// not allowed.
    pub async fn search(
        &self,
        collection: impl Into<String>,
        request: SearchRequest,
    ) -> Result<SearchReply, ClientError> {
        self.call(&request.into_message(collection.into()), Effect::Read).await
    }

    /// Reads a whole collection, page by page.
    pub fn scan(&self, collection: impl Into<String>, options: ScanOptions) -> Pages {
        let ScanOptions { page_points, level, after } = options;
        Pages::new(self.clone(), Scan { collection: collection.into(), after, limit: page_points, level })
    }

    /// Loads many points, in batches of which several are on their way at a time.
    pub fn bulk_loader(&self, collection: impl Into<String>, options: BulkOptions) -> BulkLoader {
        BulkLoader::new(self.clone(), collection.into(), options)
    }

    /// The whole mesh, as the node that answers sees it.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status(&self) -> Result<StatusReply, ClientError> {
        self.call(&Status {}, Effect::Read).await
    }

    /// The ring of all nodes, or of one collection.
    ///
    /// # Errors
    /// When there is no such collection.
    pub async fn ring(&self, collection: Option<&str>) -> Result<RingReply, ClientError> {
        self.call(&RingInfo { collection: collection.map(str::to_owned) }, Effect::Read).await
    }

    /// Takes a snapshot of one collection, or of all, on every live node.
    ///
    /// # Errors
    /// When there is no such collection. What failed on one node is in that node's report.
    pub async fn snapshot(&self, collection: Option<&str>) -> Result<Vec<SnapshotReport>, ClientError> {
        self.call(&TakeSnapshot { collection: collection.map(str::to_owned) }, Effect::RepeatableWrite).await
    }

    /// Closes the connections, also those of clones, and tells the nodes so.
    pub async fn close(self) {
        self.shared.endpoint.close(CLOSE_GRACE).await;
    }

    /// One page. A node that answers with the place where the page began would be asked for ever.
    pub(crate) async fn scan_page(&self, scan: &Scan) -> Result<ScanReply, ClientError> {
        let (page, node) = self.ask(scan, Effect::Read, Instant::now() + self.timeout).await?;
        if page.next.is_some() && page.next == scan.after {
            return Err(nonsense::<Scan>(node, format_args!("a page that ends where it began")));
        }
        Ok(page)
    }

    async fn call<R: Rpc>(&self, request: &R, effect: Effect) -> Result<R::Reply, ClientError> {
        self.ask(request, effect, Instant::now() + self.timeout).await.map(|(reply, _)| reply)
    }

    pub(crate) async fn write<B: Batch>(&self, batch: &B, options: WriteOptions) -> Result<Vec<Outcome>, ClientError> {
        let until = Instant::now() + self.timeout;
        let effect = if options.repeat_unknown { Effect::RepeatableWrite } else { Effect::SingleWrite };
        let (mut outcomes, node) = self.ask(batch, effect, until).await?;
        if outcomes.len() != batch.count() {
            return Err(nonsense::<B>(node, format_args!("{} outcomes for {} points", outcomes.len(), batch.count())));
        }
        for round in 1..=write::ROUNDS_MAX {
            let unsettled = write::unsettled(&outcomes, options.repeat_unknown);
            let pause = write::pause(round, fastrand::f64());
            if unsettled.is_empty() || Instant::now() + pause >= until {
                break;
            }
            debug!(points = unsettled.len(), round, "writing unsettled points again");
            sleep(pause).await;
            let again = batch.subset(&unsettled);
            match self.ask(&again, effect, until).await {
                Ok((later, _)) if later.len() == unsettled.len() => write::merge(&mut outcomes, &unsettled, later),
                Ok((_, node)) => debug!(%node, "the answer has another number of outcomes"),
                Err(error) => {
                    debug!(%error, "unsettled points could not be written again");
                    break;
                }
            }
        }
        Ok(outcomes)
    }

    /// Makes one request until a node answers it, no other attempt is safe, or time is up.
    async fn ask<R: Rpc>(
        &self,
        request: &R,
        effect: Effect,
        until: Instant,
    ) -> Result<(R::Reply, SocketAddr), ClientError> {
        let Shared { endpoint, nodes, preferred } = &*self.shared;
        let first = preferred.load(Ordering::Relaxed);
        let mut attempts = Attempts::new(effect, nodes.len(), first, Instant::now(), until);
        loop {
            let (node, patience) = (nodes[attempts.node()], attempts.patience(Instant::now()));
            let index = attempts.node();
            let error = match endpoint.call(node, None, request, patience).await {
                Ok(reply) => {
                    preferred.store(index, Ordering::Relaxed);
                    return Ok((reply, node));
                }
                Err(error) => error,
            };
            match attempts.failed(&error, Instant::now(), fastrand::f64()) {
                Next::Try(pause) => {
                    debug!(request = R::NAME, %node, %error, ?pause, next = %nodes[attempts.node()], "trying again");
                    sleep(pause).await;
                }
                Next::GiveUp => {
                    let RpcError { code, message, retry } = error;
                    let (attempts, retry) = (attempts.count(), attempts.verdict(retry));
                    return Err(ClientError::Request { operation: R::NAME, node, attempts, code, message, retry });
                }
            }
        }
    }
}

/// The node answered, but with what cannot be an answer.
fn nonsense<R: Rpc>(node: SocketAddr, what: std::fmt::Arguments<'_>) -> ClientError {
    let message = format!("the answer to {} has {what}: is the node of another version?", R::NAME);
    let RpcError { code, message, retry } = RpcError::new(ErrorCode::Protocol, message);
    ClientError::Request { operation: R::NAME, node, attempts: 1, code, message, retry }
}
