//! Putting together what several nodes found. Pure.

use std::collections::BTreeMap;

use vecino_model::message::ReplicaHits;
use vecino_model::{CollectionId, Hit, Metric, NodeId, PointId, RawHit, Record, ScanCursor, Version, position};

/// A hit of a search that is not answered yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The hit, with the newest version of its point that is known.
    pub hit: RawHit,
    /// Whether enough replicas gave this version.
    pub is_confirmed: bool,
}

/// Hits of several nodes, best first, with the newest version of each point that any of them reported. One that as many of
/// its replicas gave as are `needed` is confirmed.
///
/// An older version of a point is left out even where its score is better, since the point is not that any more.
pub fn candidates(
    answers: impl IntoIterator<Item = (NodeId, ReplicaHits)>,
    replicas: impl Fn(&PointId) -> Vec<NodeId>,
    needed: usize,
    metric: Metric,
) -> Vec<Candidate> {
    let mut newest: BTreeMap<PointId, (RawHit, Vec<NodeId>)> = BTreeMap::new();
    for (node, ReplicaHits { hits, horizon: _ }) in answers {
        for hit in hits {
            match newest.get_mut(&hit.id) {
                Some((known, _)) if known.version > hit.version => {}
                Some((known, givers)) if known.version == hit.version => givers.push(node),
                _ => {
                    newest.insert(hit.id.clone(), (hit, vec![node]));
                }
            }
        }
    }
    let candidate = |(hit, givers): (RawHit, Vec<NodeId>)| {
        let is_confirmed = givers.len() >= needed && {
            let replicas = replicas(&hit.id);
            givers.iter().filter(|giver| replicas.contains(giver)).count() >= needed
        };
        Candidate { hit, is_confirmed }
    };
    let mut merged: Vec<_> = newest.into_values().map(candidate).collect();
    sort(&mut merged, metric);
    merged
}

/// Puts candidates in the order of their scores, best first, and of their ids where scores are equal.
pub fn sort(candidates: &mut [Candidate], metric: Metric) {
    candidates.sort_by(|Candidate { hit: a, .. }, Candidate { hit: b, .. }| {
        let order = a.score.total_cmp(&b.score);
        let order = if metric.higher_is_better() { order.reverse() } else { order };
        order.then_with(|| a.id.cmp(&b.id))
    });
}

/// Whether a hit is still what its point is, given the newest version that enough replicas know.
pub fn is_current<P>(hit: &Hit<P>, newest: Option<Version>) -> bool {
    newest.is_none_or(|newest| newest <= hit.version)
}

/// One node's part of a page.
pub struct PagePart {
    /// In ring order.
    pub records: Vec<Record>,
    /// Whether the node has nothing after them.
    pub end: bool,
}

/// Bytes after which a page ends, well below what a frame may hold.
const PAGE_BYTES: usize = 32 * 1024 * 1024;

/// A page of a scan.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// Live records in ring order, the newest of each point.
    pub records: Vec<Record>,
    /// Where to go on; absent after the last page.
    pub next: Option<ScanCursor>,
}

/// Puts parts of a page together, at most `limit` live records.
///
/// Beyond the last record of a node that has more to tell, nothing is known of what it has, so the page ends there.
pub fn page(collection: CollectionId, parts: Vec<PagePart>, limit: usize) -> Page {
    let cursor = |record: &Record| ScanCursor { position: position(collection, &record.id), id: record.id.clone() };
    let unfinished = parts.iter().filter(|part| !part.end);
    // A part without records and without end tells nothing at all; there is none, since a page has room for one.
    let horizon = unfinished.filter_map(|part| part.records.last().map(cursor)).min();
    let mut newest: BTreeMap<PointId, Record> = BTreeMap::new();
    for record in parts.into_iter().flat_map(|part| part.records) {
        match newest.get(&record.id) {
            Some(known) if known.version >= record.version => {}
            _ => {
                newest.insert(record.id.clone(), record);
            }
        }
    }
    let mut all: Vec<_> = newest.into_values().map(|record| (cursor(&record), record)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(horizon) = &horizon {
        all.retain(|(at, _)| at <= horizon);
    }
    let mut records = Vec::new();
    let mut rest = all.into_iter().peekable();
    let mut last = None;
    let mut bytes = 0;
    while records.len() < limit
        && bytes < PAGE_BYTES
        && let Some((at, record)) = rest.next()
    {
        last = Some(at);
        if record.value.is_some() {
            bytes += record.bytes();
            records.push(record);
        }
    }
    let next = if rest.peek().is_some() { last } else { horizon };
    Page { records, next }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vecino_model::{RawPayload, RecordValue};

    use super::*;

    fn version(time: u64) -> Version {
        Version { time, node: NodeId::from_bytes([1; 16]), seq: 0 }
    }

    fn hit(id: u64, time: u64, score: f32) -> RawHit {
        RawHit { id: id.into(), score, version: version(time), payload: None, vectors: BTreeMap::new() }
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn merged(answers: Vec<Vec<RawHit>>, metric: Metric) -> Vec<Candidate> {
        let answers = answers.into_iter().zip(1..).map(|(hits, number)| {
            let answer = ReplicaHits { hits, horizon: None };
            (node(number), answer)
        });
        candidates(answers, |_| vec![node(1), node(2), node(3)], 2, metric)
    }

    #[test]
    fn the_newest_version_of_each_point_stands_in_the_metric_s_order() {
        let answers = || vec![vec![hit(1, 1, 0.9), hit(2, 1, 0.5)], vec![hit(1, 2, 0.1), hit(3, 1, 0.5)]];
        let ids = |metric| {
            let merged = merged(answers(), metric);
            merged.into_iter().map(|candidate| candidate.hit.id.to_string()).collect::<String>()
        };
        assert_eq!(ids(Metric::Cosine), "231", "higher first, equals by id; the old 0.9 of point 1 is gone");
        assert_eq!(ids(Metric::Euclidean), "123");
    }

    #[test]
    fn a_hit_that_a_majority_gave_with_one_version_needs_no_second_round() {
        let answers = vec![vec![hit(1, 1, 0.1), hit(2, 1, 0.2), hit(3, 1, 0.3)], vec![hit(1, 1, 0.1), hit(2, 2, 0.2)]];
        let confirmed: Vec<bool> =
            merged(answers.clone(), Metric::Euclidean).iter().map(|candidate| candidate.is_confirmed).collect();
        assert_eq!(confirmed, [true, false, false], "point 2 has two versions, and one node alone gave point 3");
        let by_others = answers.into_iter().zip(8..).map(|(hits, number)| {
            let answer = ReplicaHits { hits, horizon: None };
            (node(number), answer)
        });
        let strangers = candidates(by_others, |_| vec![node(1), node(2), node(3)], 2, Metric::Euclidean);
        assert!(strangers.iter().all(|candidate| !candidate.is_confirmed), "they are no replicas of it");
    }

    #[test]
    fn a_hit_that_was_overwritten_is_not_current() {
        assert!(is_current(&hit(1, 5, 0.0), None));
        assert!(is_current(&hit(1, 5, 0.0), Some(version(5))));
        assert!(!is_current(&hit(1, 5, 0.0), Some(version(6))));
    }

    proptest! {
        /// Pages over nodes that each hold some versions of some points give every point whose newest version lives, once.
        #[test]
        fn pages_give_every_live_point_once(
            writes in prop::collection::vec((0..30u64, 1..10u64, 0..3usize, any::<bool>()), 0..80),
            (page_of_node, limit) in (1..6usize, 1..6usize)
        ) {
            let collection = CollectionId([4; 16]);
            let mut nodes = vec![BTreeMap::<ScanCursor, Record>::new(); 3];
            let mut oracle = BTreeMap::<u64, (u64, bool)>::new();
            for (id, time, node, live) in writes {
                let time = time * 2 + u64::from(live);
                let value = live.then(|| RecordValue { vectors: BTreeMap::new(), payload: RawPayload::default() });
                let record = Record { id: id.into(), version: version(time), value };
                let at = ScanCursor { position: position(collection, &id.into()), id: id.into() };
                let known = nodes[node].entry(at).or_insert_with(|| record.clone());
                if known.version < record.version { *known = record; }
                let newest = oracle.entry(id).or_insert((0, false));
                if newest.0 < time { *newest = (time, live); }
            }
            let (mut after, mut seen) = (None::<ScanCursor>, Vec::new());
            loop {
                let parts = nodes.iter().map(|node| {
                    let rest: Vec<_> = node.iter().filter(|(at, _)| Some(*at) > after.as_ref()).collect();
                    PagePart {
                        end: rest.len() < page_of_node,
                        records: rest.into_iter().take(page_of_node).map(|(_, record)| record.clone()).collect(),
                    }
                });
                let Page { records, next } = page(collection, parts.collect(), limit);
                prop_assert!(records.len() <= limit);
                seen.extend(records.into_iter().map(|record| (record.id, record.version)));
                prop_assert!(next.is_none() || next > after, "a page always gets further");
                after = next;
                if after.is_none() { break; }
            }
            seen.sort();
            let expected: Vec<_> = oracle
                .into_iter()
                .filter(|(_, (_, live))| *live)
                .map(|(id, (time, _))| (PointId::Number(id), version(time)))
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
