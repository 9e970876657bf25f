//! The client: its collections, and what concerns the whole mesh.

use std::net::SocketAddr;
use std::time::Duration;

use vecino_mesh::client::Effect;
use vecino_net::endpoint::Endpoint;
use vecino_net::message::{
    CollectionInfo, ListCollections, RingInfo, RingReply, SnapshotReport, Status, StatusReply, TakeSnapshot,
};

use crate::collection::Collection;
use crate::error::ClientError;
use crate::session::Session;

/// How long [`Client::close`] waits for requests of other clones.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A connection to a mesh, through any of its nodes. Cheap to clone; clones share their connections.
///
/// Requests that fail are made again, at the next address where there is one, as long as that is safe and time is left:
/// reads always; puts and deletes too, unless [`repeat_unknown`](crate::WriteRequest::repeat_unknown) is switched off;
/// creating and dropping collections only where it is certain that nothing happened. A put or delete that is made again
/// takes effect once. Where a node is late, a read or a small write goes to a second one beside it, and the first answer
/// counts; from the first answer on the client knows the addresses of all members.
#[derive(Clone, Debug)]
pub struct Client {
    session: Session,
}

impl Client {
    pub(crate) fn new(endpoint: Endpoint, nodes: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { session: Session::new(endpoint, nodes, timeout) }
    }

    /// The same client, whose requests may take this long, all attempts together.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { session: self.session.with_timeout(timeout) }
    }

    /// How long its requests may take, all attempts together.
    pub fn timeout(&self) -> Duration {
        self.session.timeout()
    }

    /// The addresses that it knows, in the order in which they were given.
    pub fn nodes(&self) -> &[SocketAddr] {
        self.session.nodes()
    }

    /// The collection of this name. Nothing is asked: whether it exists shows when something is asked of it.
    pub fn collection(&self, name: impl Into<String>) -> Collection {
        Collection::new(self.session.clone(), name.into())
    }

    /// All collections.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>, ClientError> {
        self.session.call(&ListCollections {}, Effect::Read).await
    }

    /// The whole mesh, as the node that answers sees it.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status(&self) -> Result<StatusReply, ClientError> {
        self.session.call(&Status {}, Effect::Read).await
    }

    /// The ring of all nodes; that of one collection is [`Collection::ring`].
    ///
    /// # Errors
    /// When no node answers.
    pub async fn ring(&self) -> Result<RingReply, ClientError> {
        self.session.call(&RingInfo { collection: None }, Effect::Read).await
    }

    /// Takes a snapshot of every collection on every live node; of one collection it is [`Collection::snapshot`].
    ///
    /// # Errors
    /// When no node answers. What failed on one node is in that node's report.
    pub async fn snapshot(&self) -> Result<Vec<SnapshotReport>, ClientError> {
        self.session.call(&TakeSnapshot { collection: None }, Effect::RepeatableWrite).await
    }

    /// Closes the connections, also those of clones, and tells the nodes so.
    pub async fn close(self) {
        self.session.close(CLOSE_GRACE).await;
    }
}
