//! Giving points the versions that they are to be written with, before anything is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_model::error::RpcError;
use vecino_model::message::{ReplicaVersions, Stamp, Stamped};
use vecino_model::{Level, PointId, Version, validate};

use super::checks::{check_batch, check_clock};
use super::get;
use super::replica;
use super::task::{Task, answer_of};
use crate::collections::Route;
use crate::plants::Plant;
use crate::quorum::PointIndex;

/// Gives each point a version newer than those that a majority of its replicas has; at level `one`, than the one that this
/// node's own replica has, unless its clock is off.
pub(super) async fn stamp(task: &Task, request: Stamp) -> Result<Vec<Stamped>, RpcError> {
    let Stamp { collection, ids, level } = request;
    check_batch(ids.len())?;
    check_clock(task, level)?;
    let route = task.route(&collection).await?;
    let mut stamps: Vec<Option<Stamped>> = Vec::with_capacity(ids.len());
    let mut valid: Vec<PointId> = Vec::with_capacity(ids.len());
    for id in ids {
        match validate::point_id(&id) {
            Ok(()) => {
                stamps.push(None);
                valid.push(id);
            }
            Err(invalid) => stamps.push(Some(Stamped::Refused(invalid.to_string()))),
        }
    }
    let mut given = if valid.is_empty() {
        Vec::new()
    } else if level == Level::One {
        let own = own_versions(task, &route, &valid).await;
        own.into_iter().map(|newest| give(task, newest.unwrap_or(Version::ZERO))).collect()
    } else if task.core().plants.has(Plant::WritesDoNotAsk) {
        valid.iter().map(|_| give(task, Version::ZERO)).collect()
    } else {
        by_majorities(task, &route, &valid).await
    }
    .into_iter();
    let unasked = || Stamped::Unavailable("the replicas were not asked".to_owned());
    Ok(stamps.into_iter().map(|stamped| stamped.or_else(|| given.next()).unwrap_or_else(unasked)).collect())
}

fn give(task: &Task, above: Version) -> Stamped {
    stamp_above(task, above).map_or_else(Stamped::Refused, Stamped::Version)
}

/// Gives each point a version newer than those that a majority of its replicas has. As many are asked as are needed, this node
/// and quick ones first, and another where one is late.
async fn by_majorities(task: &Task, route: &Arc<Route>, ids: &[PointId]) -> Vec<Stamped> {
    let newest = get::versions(task, route, ids, |_| false, Level::Quorum).await;
    let stamp = |newest: Result<Option<Version>, String>| match newest {
        Ok(newest) => give(task, newest.unwrap_or(Version::ZERO)),
        Err(reason) => Stamped::Unavailable(reason),
    };
    newest.into_iter().map(stamp).collect()
}

/// A version newer than this one.
pub(super) fn stamp_above(task: &Task, above: Version) -> Result<Version, String> {
    let (core, wall_ms) = (task.core(), task.now().wall_ms);
    let mut clock = core.clock();
    if core.plants.has(Plant::ClocksDecide) {
        return clock.stamp_by_the_clock(above, wall_ms).map_err(|drift| drift.to_string());
    }
    if core.plants.has(Plant::EqualStampsAfterARestart) {
        return Ok(clock.stamp_of_this_life(above, wall_ms));
    }
    clock.stamp(above, wall_ms).map_err(|error| error.to_string())
}

/// What this node's own replica has of each point; nothing where it keeps none.
pub(super) async fn own_versions(task: &Task, route: &Arc<Route>, ids: &[PointId]) -> Vec<Option<Version>> {
    if !replica::keeps(task, route.id) {
        return vec![None; ids.len()];
    }
    let request = ReplicaVersions { collection: route.id, ids: ids.to_vec() };
    let answer = answer_of::<ReplicaVersions>(replica::own(task, request.into()).await);
    // Without it the clock alone decides.
    answer.ok().filter(|versions| versions.len() == ids.len()).unwrap_or_else(|| vec![None; ids.len()])
}

/// A stamp that is further ahead of this node's clock than this is looked into.
const AHEAD_MS_MAX: u64 = 3_600_000;

/// Why some of the points of a write cannot be written with the stamps that were sent with them.
///
/// A stamp that is more than an hour ahead is taken only where a majority's newest version of that point is not much
/// behind it: a clock that is wrong may have made that one, but a stamp that is out of the blue was made up.
pub(super) async fn check_stamps(
    task: &Task,
    route: &Arc<Route>,
    points: &[(PointId, Version)],
) -> BTreeMap<PointIndex, Result<(), StampFault>> {
    let wall_ms = task.now().wall_ms;
    let known = task.core().peers().known();
    let mut faults = BTreeMap::new();
    let mut ahead = Vec::new();
    for (index, (id, stamp)) in points.iter().enumerate() {
        if !known.contains(&stamp.node) && !route.ring.nodes().any(|node| node == stamp.node) {
            let fault = format!("stamp {stamp} is of node {}, which is no member of the mesh", stamp.node.short());
            faults.insert(index, Err(StampFault::Wrong(fault)));
        } else if (stamp.time >> 16).saturating_sub(wall_ms) > AHEAD_MS_MAX {
            ahead.push((index, id.clone(), *stamp));
        }
    }
    if ahead.is_empty() {
        return faults;
    }
    let ids: Vec<PointId> = ahead.iter().map(|(_, id, _)| id.clone()).collect();
    let newest = get::versions(task, route, &ids, |_| false, Level::Quorum).await;
    for ((index, _, stamp), newest) in ahead.into_iter().zip(newest) {
        let judged = match newest {
            Ok(newest) => {
                let newest = newest.unwrap_or(Version::ZERO);
                let ahead_ms = (stamp.time >> 16).saturating_sub(newest.time >> 16);
                if ahead_ms <= AHEAD_MS_MAX {
                    continue;
                }
                StampFault::Wrong(format!(
                    "stamp {stamp} is {ahead_ms} ms ahead of the newest version of its point (at most {AHEAD_MS_MAX} ms, \
                     where it is as far ahead of this node's clock): ask for another stamp"
                ))
            }
            Err(reason) => StampFault::Unknown(reason),
        };
        faults.insert(index, Err(judged));
    }
    faults
}

/// Why a point is not written with its stamp.
pub(super) enum StampFault {
    /// It is no stamp that a node would have given.
    Wrong(String),
    /// Too few replicas told whether it is one.
    Unknown(String),
}
