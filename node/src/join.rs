//! Finding the mesh: carries out what [`vecino_mesh::joining`] decides.

use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};
use vecino_mesh::joining::{Arrival, Command, Joined, Joining, Notice, Stranger};
use vecino_mesh::machine::{CallId, Stepped};
use vecino_mesh::time::{Now, Time};
use vecino_model::{MeshId, NodeId};
use vecino_net::endpoint::Endpoint;

use crate::wall_clock::{SystemClock, WallClock};

/// Most answers that wait to be looked at. One is waited for; a few more may come too late.
const ARRIVALS_MAX: usize = 16;

/// Looks for a mesh at the seeds until it finds one, or starts one where that is this node's part.
pub async fn find(endpoint: &Endpoint, node: NodeId, advertise: SocketAddr, seeds: &[String], own: &[u64]) -> Joined {
    let new_mesh = MeshId(fastrand::u128(..).to_le_bytes());
    let began = Instant::now();
    let time = |instant: Instant| Time::default() + instant.saturating_duration_since(began);
    let now = || Now { time: time(Instant::now()), wall_ms: SystemClock.now_ms() };
    let stranger = Stranger { node, address: advertise, seeds: seeds.to_vec(), tokens: own.to_vec(), new_mesh };
    let mut joining = Joining::new(stranger, now());
    let (arrivals, mut arrived) = tokio::sync::mpsc::channel::<(CallId, Arrival)>(ARRIVALS_MAX);
    let mut calls = tokio::task::JoinSet::new();
    let mut arrival = None;
    loop {
        let Stepped { commands, wake_at, is_done: _ } = joining.step(now(), arrival.take());
        if let Some(joined) = joining.joined() {
            let mesh = joined.mesh;
            match &joined.seed {
                Some(seed) => info!(%mesh, seed, members = joined.members.len(), "joined the mesh"),
                None => info!(%mesh, "started a new mesh"),
            }
            return joined;
        }
        for command in commands {
            let (endpoint, arrivals) = (endpoint.clone(), arrivals.clone());
            match command {
                Command::Say(notice) => say(notice),
                Command::Resolve { call, seed } => {
                    _ = calls.spawn(async move {
                        let found = tokio::net::lookup_host(seed).await;
                        let resolved = found.map(Iterator::collect).map_err(|error| error.to_string());
                        let _ = arrivals.send((call, Arrival::Resolved(resolved))).await;
                    })
                }
                Command::Ask { call, address, request, until } => {
                    let left = until.since(now().time);
                    calls.spawn(async move {
                        let answered = endpoint.call(address, None, &request, left).await;
                        let _ = arrivals.send((call, Arrival::Answered(answered))).await;
                    });
                }
            }
        }
        arrival = if wake_at == Time::NEVER {
            arrived.recv().await
        } else {
            let wake_at = began + wake_at.since(Time::default());
            timeout_at(wake_at, arrived.recv()).await.ok().flatten()
        };
    }
}

fn say(notice: Notice) {
    match notice {
        // The dialler has logged the reason.
        Notice::Refused { seed } => warn!(seed, "this node cannot join through this seed until that refusal is mended"),
        Notice::NoMesh { reasons } => {
            warn!(reasons = reasons.join("; "), "no seed has a mesh to join yet; asking on");
        }
    }
}
