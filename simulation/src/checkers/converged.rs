//! After the faults every point is where it belongs, and nothing was lost or came back.
//!
//! [`check_replicas`] looks at what the nodes hold, [`check_final_reads`] at what a client then reads at `quorum`. The
//! second asks less than linearizability, and says plainly what is wrong: a value must be one that no certain write
//! overwrote, in whatever order the others took effect.

use std::collections::{BTreeMap, BTreeSet};

use vecino_model::{NodeId, Version};

use super::history::{Operation, in_time_order};
use super::writes::{Write, Writes};

/// What a node holds of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of which version.
    pub version: Version,
    /// The value; none where it was deleted.
    pub value: Option<u64>,
}

/// What each node holds of each point, deletes included.
pub type Holdings = BTreeMap<NodeId, BTreeMap<u64, Stored>>;

/// Why a mesh has not converged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotConverged {
    /// A replica lacks a point that others have.
    #[error("point {point} is not on node {}, one of its replicas", node.short())]
    Lacking {
        /// Which point.
        point: u64,
        /// Which replica.
        node: NodeId,
    },
    /// A node has a point that is not its own.
    #[error("point {point} is on node {}, which is none of its replicas", node.short())]
    Stray {
        /// Which point.
        point: u64,
        /// Which node.
        node: NodeId,
    },
    /// Its replicas differ.
    #[error("the replicas of point {point} differ:{}", one_to_a_line(stored))]
    Different {
        /// Which point.
        point: u64,
        /// What each replica has.
        stored: Vec<(NodeId, Stored)>,
    },
}

fn one_to_a_line(stored: &[(NodeId, Stored)]) -> String {
    let line = |(node, Stored { version, value }): &(NodeId, Stored)| match value {
        Some(value) => format!("\n  node {} has value {value} of version {version}", node.short()),
        None => format!("\n  node {} has a delete of version {version}", node.short()),
    };
    stored.iter().map(line).collect()
}

/// Every point that any node holds is on exactly its replicas, the same on each. `replicas_of` says which these are.
pub fn check_replicas(holdings: &Holdings, replicas_of: impl Fn(u64) -> BTreeSet<NodeId>) -> Result<(), NotConverged> {
    let points: BTreeSet<u64> = holdings.values().flat_map(BTreeMap::keys).copied().collect();
    for point in points {
        let replicas = replicas_of(point);
        let holds = |node: &NodeId| holdings.get(node).and_then(|points| points.get(&point));
        if let Some(stray) = holdings.keys().find(|node| !replicas.contains(*node) && holds(node).is_some()) {
            return Err(NotConverged::Stray { point, node: *stray });
        }
        let mut stored = Vec::new();
        for node in replicas {
            stored.push((node, *holds(&node).ok_or(NotConverged::Lacking { point, node })?));
        }
        if stored.windows(2).any(|pair| pair[0].1 != pair[1].1) {
            return Err(NotConverged::Different { point, stored });
        }
    }
    Ok(())
}

/// What was lost, or came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A value that was acknowledged or seen is gone, and no delete took it away.
    #[error("point {point} is lost:{}", in_time_order(puts))]
    Lost {
        /// Which point.
        point: u64,
        /// Its puts that certainly took effect.
        puts: Vec<Operation>,
    },
    /// A value is back that was overwritten or deleted.
    #[error("point {point} has a value again that it had before:{}", in_time_order(operations))]
    CameBack {
        /// Which point.
        point: u64,
        /// The put of that value, and what overwrote or deleted it.
        operations: Vec<Operation>,
    },
    /// A value that nobody put.
    #[error("point {point} has value {value}, which nobody put")]
    FromNowhere {
        /// Which point.
        point: u64,
        /// Which value.
        value: u64,
    },
    /// A point that was written was not read.
    #[error("point {point} was written and not read at the end: read every point")]
    NotRead {
        /// Which point.
        point: u64,
    },
}

/// Judges what is read of every point when all operations have ended that ever will.
pub fn check_final_reads(operations: &[Operation], reads: &BTreeMap<u64, Option<u64>>) -> Result<(), Wrong> {
    let writes = Writes::new(operations);
    if let Some((point, _)) = writes.points().find(|(point, _)| !reads.contains_key(point)) {
        return Err(Wrong::NotRead { point });
    }
    for (point, read) in reads {
        let point = *point;
        match *read {
            Some(value) => {
                let put = writes.put_of(point, value).ok_or(Wrong::FromNowhere { point, value })?;
                if let Some(later) = writes.overwriting(put, u64::MAX) {
                    return Err(Wrong::CameBack { point, operations: vec![put.operation, later.operation] });
                }
            }
            None => {
                let certain = writes.of(point).iter().filter(|write| write.settled_at.is_some());
                let puts: Vec<_> =
                    certain.map(|write| write.operation).filter(|put| put.written() != Some(None)).collect();
                let is_last = |delete: &Write| writes.overwriting(delete, u64::MAX).is_none();
                let mut deletes = writes.of(point).iter().filter(|write| write.operation.written() == Some(None));
                if !puts.is_empty() && !deletes.any(is_last) {
                    return Err(Wrong::Lost { point, puts });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::history::testing::{delete, get, put, refused_put, unknown_delete, unknown_put};
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn stored(time: u64, value: u64) -> Stored {
        Stored { version: Version { time, node: node(9), seq: 0 }, value: Some(value) }
    }

    /// Point 7 on nodes 1 and 2 of three.
    fn mesh(held: &[(u8, Stored)]) -> Result<(), NotConverged> {
        let mut holdings: Holdings = (1..=3).map(|number| (node(number), BTreeMap::new())).collect();
        for (number, stored) in held {
            holdings.entry(node(*number)).or_default().insert(7, *stored);
        }
        check_replicas(&holdings, |_| [node(1), node(2)].into())
    }

    #[test]
    fn a_point_is_on_exactly_its_replicas_and_the_same_on_each() {
        let new = stored(2, 5);
        assert_eq!(mesh(&[]), Ok(()));
        assert_eq!(mesh(&[(1, new), (2, new)]), Ok(()));
        assert_eq!(mesh(&[(1, new)]), Err(NotConverged::Lacking { point: 7, node: node(2) }));
        assert_eq!(mesh(&[(1, new), (2, new), (3, new)]), Err(NotConverged::Stray { point: 7, node: node(3) }));
        let old = stored(1, 4);
        let different = mesh(&[(1, new), (2, old)]).unwrap_err();
        assert_eq!(different, NotConverged::Different { point: 7, stored: vec![(node(1), new), (node(2), old)] });
        assert!(different.to_string().contains("\n  node 02020202 has value 4 of version 0.1-0909"), "{different}");
        let one_version_of_two_values = mesh(&[(1, new), (2, stored(2, 6))]);
        assert!(matches!(one_version_of_two_values, Err(NotConverged::Different { .. })));
    }

    fn judge(operations: &[Operation], read: Option<u64>) -> Result<(), Wrong> {
        check_final_reads(operations, &[(1, read)].into())
    }

    #[test]
    fn nothing_acknowledged_is_lost() {
        assert_eq!(judge(&[put(5, 10, 20)], Some(5)), Ok(()));
        let lost = judge(&[put(5, 10, 20)], None).unwrap_err();
        assert_eq!(lost.to_string(), "point 1 is lost:\n  put 5 by client 0, from 10 to 20");
        assert!(judge(&[delete(1, 5), put(5, 10, 20)], None).is_err(), "the delete was before");
        assert!(judge(&[unknown_put(5, 10), get(5, 30, 40)], None).is_err(), "it was seen, so it was there");
        assert_eq!(judge(&[unknown_put(5, 10)], None), Ok(()));
        assert_eq!(judge(&[refused_put(5, 10)], None), Ok(()));
        assert_eq!(judge(&[unknown_delete(1), put(5, 10, 20)], None), Ok(()), "the delete surfaced late");
        assert_eq!(judge(&[put(5, 10, 20), delete(15, 30)], None), Ok(()));
        assert_eq!(check_final_reads(&[put(5, 10, 20)], &[].into()), Err(Wrong::NotRead { point: 1 }));
    }

    #[test]
    fn nothing_deleted_or_overwritten_comes_back() {
        let operations = [put(5, 10, 20), delete(30, 40)];
        assert_eq!(judge(&operations, None), Ok(()));
        let back = judge(&operations, Some(5)).unwrap_err();
        assert_eq!(back, Wrong::CameBack { point: 1, operations: operations.to_vec() });
        let overwritten = [put(5, 10, 20), put(6, 30, 40)];
        assert!(matches!(judge(&overwritten, Some(5)), Err(Wrong::CameBack { .. })));
        assert_eq!(judge(&[put(5, 10, 35), put(6, 30, 40)], Some(5)), Ok(()), "either may be the later one");
        assert_eq!(judge(&[put(5, 10, 20), unknown_put(6, 30)], Some(6)), Ok(()));
        assert_eq!(judge(&[refused_put(6, 30)], Some(6)), Err(Wrong::FromNowhere { point: 1, value: 6 }));
    }
}
