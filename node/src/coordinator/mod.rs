//! What people ask a node about the mesh: its collections, its state, its ring; and the streams that a scan is read in.
//!
//! What is decided about points and collections is decided in [`vecino_mesh`], and the [driver](crate::driver) carries it
//! out; here the answers of all nodes are put together.

mod admin;
mod scan;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use vecino_mesh::collections::Route;
use vecino_mesh::message::Find;
use vecino_model::{Member, MeshId, NodeId, NodeState, View};
use vecino_net::endpoint::Endpoint;
use vecino_net::error::RpcError;
use vecino_net::message::Rpc;
use vecino_net::rpc::{RequestContext, TraceId};

use crate::driver::Driver;
use crate::store::Store;

/// Answers what people ask. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    node_id: NodeId,
    mesh_id: MeshId,
    endpoint: Endpoint,
    store: Arc<Store>,
    view: watch::Receiver<Arc<View>>,
    driver: Driver,
}

impl Coordinator {
    /// A coordinator on a node that has joined its mesh.
    pub fn new(
        node_id: NodeId,
        mesh_id: MeshId,
        endpoint: Endpoint,
        store: Arc<Store>,
        view: watch::Receiver<Arc<View>>,
        driver: Driver,
    ) -> Self {
        Self { shared: Arc::new(Shared { node_id, mesh_id, endpoint, store, view, driver }) }
    }

    /// What carries out the decisions of the node.
    pub fn driver(&self) -> &Driver {
        &self.shared.driver
    }

    /// The members of the mesh, as of now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.shared.view.borrow())
    }

    /// The collection of this name, looked for on other nodes too where it is not known here.
    async fn route(&self, context: &RequestContext, name: &str) -> Result<Arc<Route>, RpcError> {
        self.driver().ask(context, Find { collection: name.to_owned() }).await
    }

    fn other_members_up(&self) -> Vec<Member> {
        let view = self.view();
        let is_other_up = |member: &&Member| member.state == NodeState::Up && member.id != self.shared.node_id;
        view.members.values().filter(is_other_up).cloned().collect()
    }

    /// Sends one request to several nodes at once; answers in no particular order.
    async fn ask_all<R: Rpc + Clone + Sync>(
        &self,
        members: &[Member],
        request: &R,
        timeout: Duration,
    ) -> BTreeMap<NodeId, Result<R::Reply, RpcError>> {
        let mut calls = tokio::task::JoinSet::new();
        for Member { id, address, .. } in members {
            let (endpoint, request, id, address) = (self.shared.endpoint.clone(), request.clone(), *id, *address);
            let trace = TraceId::current().unwrap_or_else(TraceId::random);
            calls.spawn(trace.scope(async move { (id, endpoint.call(address, Some(id), &request, timeout).await) }));
        }
        calls.join_all().await.into_iter().collect()
    }
}

/// What is left of a request's time for the other nodes, so that the answer still reaches the caller.
fn replica_deadline(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    Instant::now() + left.mul_f64(0.9)
}
