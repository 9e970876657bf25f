//! Exact searches at `quorum` return what was there, and nothing that was not.
//!
//! Three rules, each of what is certain alone:
//! 1. No hit has a value that was overwritten or deleted before the search began.
//! 2. The value of a hit was put by an operation that began before the search ended.
//! 3. A point whose value was acknowledged before the search began, and that nobody may have deleted since, is among the
//!    hits, in one of its values, if all that it may have had meanwhile are nearer than the last hit, or there are fewer
//!    hits than were asked for.
//!
//! Scores are distances: lower is nearer. Of points as near as the last hit any may be left out.

use std::collections::BTreeMap;

use super::history::{Operation, in_time_order};
use super::writes::{Write, Writes};

/// What a search returned of one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Which point.
    pub point: u64,
    /// With which value.
    pub value: u64,
}

/// One search that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Who asked.
    pub client: usize,
    /// When it was asked for.
    pub began: u64,
    /// When it was answered.
    pub ended: u64,
    /// How many hits were asked for.
    pub k: usize,
    /// What it returned, nearest first.
    pub hits: Vec<Hit>,
}

/// What is wrong with a search. The sentence about the search itself is left to who has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// There are more hits than were asked for.
    #[error("{hits} hits for a search of {k}")]
    TooMany {
        /// How many there are.
        hits: usize,
        /// How many were asked for.
        k: usize,
    },
    /// The same point twice.
    #[error("point {point} is two hits")]
    PointTwice {
        /// Which point.
        point: u64,
    },
    /// A hit is nearer than the one before it.
    #[error("hit {index} (point {point}) is nearer than the one before it: {score} after {before}")]
    OutOfOrder {
        /// Which hit, from 0.
        index: usize,
        /// Of which point.
        point: u64,
        /// Its score.
        score: u64,
        /// The score of the one before.
        before: u64,
    },
    /// Rule 2: a value that nobody put, or not yet.
    #[error("point {point} was found with value {value}, which nobody had put before {ended}")]
    NotYetPut {
        /// Which point.
        point: u64,
        /// With which value.
        value: u64,
        /// When the search ended.
        ended: u64,
    },
    /// Rule 1: a value that was overwritten or deleted.
    #[error("point {point} was found from {began} on with a value of before:{}", in_time_order(operations))]
    Overwritten {
        /// Which point.
        point: u64,
        /// When the search began.
        began: u64,
        /// The put of its value, and what overwrote or deleted it.
        operations: Vec<Operation>,
    },
    /// Rule 3: a point that had to be found.
    #[error("point {point} at distance {score} is missing, {why}:{}", in_time_order(&[*put]))]
    Missing {
        /// Which point.
        point: u64,
        /// Its score.
        score: u64,
        /// Which part of the rule it is.
        why: &'static str,
        /// The put of its value.
        put: Operation,
    },
}

/// Judges the searches of one history.
#[derive(Clone, Debug)]
pub struct Searches {
    writes: Writes,
}

impl Searches {
    /// From all operations of the run, those that began after the searches too.
    pub fn new(operations: &[Operation]) -> Self {
        Self { writes: Writes::new(operations) }
    }

    /// Judges one exact search at `quorum`. `score` is the distance of a value to what was searched for.
    pub fn check(&self, search: &Search, score: impl Fn(u64) -> u64) -> Result<(), Violation> {
        if search.hits.len() > search.k {
            return Err(Violation::TooMany { hits: search.hits.len(), k: search.k });
        }
        let mut found = BTreeMap::new();
        for (index, Hit { point, value }) in search.hits.iter().copied().enumerate() {
            if found.insert(point, value).is_some() {
                return Err(Violation::PointTwice { point });
            }
            let before = index.checked_sub(1).map(|before| score(search.hits[before].value));
            if let Some(before) = before.filter(|before| score(value) < *before) {
                return Err(Violation::OutOfOrder { index, point, score: score(value), before });
            }
            self.check_hit(search, point, value)?;
        }
        self.check_missing(search, &found, score)
    }

    /// Rules 1 and 2.
    fn check_hit(&self, search: &Search, point: u64, value: u64) -> Result<(), Violation> {
        let put = self.writes.put_of(point, value).filter(|put| put.operation.began <= search.ended);
        let Some(put) = put else { return Err(Violation::NotYetPut { point, value, ended: search.ended }) };
        match self.writes.overwriting(put, search.began) {
            None => Ok(()),
            Some(later) => {
                let operations = vec![put.operation, later.operation];
                Err(Violation::Overwritten { point, began: search.began, operations })
            }
        }
    }

    /// Rule 3.
    fn check_missing(
        &self,
        search: &Search,
        found: &BTreeMap<u64, u64>,
        score: impl Fn(u64) -> u64,
    ) -> Result<(), Violation> {
        let last = search.hits.last().map(|hit| score(hit.value));
        for (point, writes) in self.writes.points() {
            if found.contains_key(&point) {
                continue;
            }
            let Some((put, values)) = values_meanwhile(search, writes) else { continue };
            // In whichever of its versions it was there.
            let Some(score) = values.into_iter().map(&score).max() else { continue };
            let put = put.operation;
            if search.hits.len() < search.k {
                let why = "though fewer hits were returned than asked for";
                return Err(Violation::Missing { point, score, why, put });
            }
            if last.is_some_and(|last| score < last) {
                return Err(Violation::Missing { point, score, why: "though it is nearer than the last hit", put });
            }
        }
        Ok(())
    }
}

/// A put that was acknowledged before the search began, and the values that the point may have had while the search was
/// under way; nothing where it may not have been there.
fn values_meanwhile<'a>(search: &Search, writes: &'a [Write]) -> Option<(&'a Write, Vec<u64>)> {
    let settled = || writes.iter().filter(|write| write.is_settled_before(search.began));
    let newest = settled().max_by_key(|write| write.operation.began)?;
    let is_over = |write: &Write| settled().any(|later| write.precedes(later));
    let possible = writes.iter().filter(|write| write.operation.began <= search.ended && !is_over(write));
    let values: Option<Vec<u64>> = possible.map(|write| write.operation.written().flatten()).collect();
    values.map(|values| (newest, values))
}

#[cfg(test)]
mod tests {
    use super::super::history::testing::{delete, get, put, refused_put, unknown_delete, unknown_put};
    use super::*;

    /// A search from 100 to 110 for what is near 0, where the score of a value is the value.
    fn search(k: usize, hits: &[(u64, u64)]) -> Search {
        let hits = hits.iter().map(|(point, value)| Hit { point: *point, value: *value }).collect();
        Search { client: 1, began: 100, ended: 110, k, hits }
    }

    fn judge(operations: &[Operation], k: usize, hits: &[(u64, u64)]) -> Result<(), Violation> {
        Searches::new(operations).check(&search(k, hits), |value| value)
    }

    #[test]
    fn what_was_there_all_the_time_is_to_be_found() {
        let operations = [put(5, 10, 20), put(7, 10, 20).of(2), put(9, 10, 20).of(3)];
        assert_eq!(judge(&operations, 2, &[(1, 5), (2, 7)]), Ok(()), "the third is farther");
        assert_eq!(judge(&operations, 3, &[(1, 5), (2, 7), (3, 9)]), Ok(()));
        let nearer = judge(&operations, 2, &[(1, 5), (3, 9)]).unwrap_err();
        let Violation::Missing { point: 2, score: 7, why, .. } = &nearer else { panic!("{nearer}") };
        assert!(why.contains("nearer than the last hit"), "{nearer}");
        let fewer = judge(&operations, 3, &[(1, 5), (2, 7)]).unwrap_err();
        let told = "point 3 at distance 9 is missing, though fewer hits were returned than asked for:\n  put 9";
        assert!(fewer.to_string().starts_with(told), "{fewer}");
        let as_near = Searches::new(&operations).check(&search(1, &[(3, 9)]), |_| 4);
        assert_eq!(as_near, Ok(()), "any of those that are as near");
        assert_eq!(judge(&operations, 0, &[]), Ok(()));
    }

    #[test]
    fn what_was_overwritten_before_is_not_found() {
        let operations = [put(5, 10, 20), put(7, 30, 40)];
        assert_eq!(judge(&operations, 3, &[(1, 7)]), Ok(()));
        let stale = judge(&operations, 3, &[(1, 5)]).unwrap_err();
        assert_eq!(
            stale.to_string(),
            "point 1 was found from 100 on with a value of before:\n  put 5 by client 0, from 10 to 20\n  put 7 by \
             client 0, from 30 to 40"
        );
        let deleted = judge(&[put(5, 10, 20), delete(30, 40)], 3, &[(1, 5)]).unwrap_err();
        assert!(matches!(deleted, Violation::Overwritten { point: 1, .. }), "{deleted}");
        let concurrent = [put(5, 10, 35), put(7, 30, 40)];
        assert_eq!(judge(&concurrent, 3, &[(1, 5)]), Ok(()), "either may be the later one");
        let beside = [put(5, 10, 20), put(7, 30, 105)];
        assert_eq!(judge(&beside, 3, &[(1, 5)]), Ok(()), "overwritten while it was searched");
    }

    #[test]
    fn a_put_of_unknown_outcome_counts_once_it_was_seen() {
        let unseen = [put(5, 10, 20), unknown_put(7, 30)];
        assert_eq!(judge(&unseen, 3, &[(1, 5)]), Ok(()));
        assert_eq!(judge(&unseen, 3, &[(1, 7)]), Ok(()));
        let missing = judge(&unseen, 3, &[]).unwrap_err();
        assert!(matches!(missing, Violation::Missing { point: 1, score: 7, .. }), "in one of its values: {missing}");
        let farther = [put(5, 10, 20), unknown_put(90, 30), put(9, 10, 20).of(2)];
        assert_eq!(judge(&farther, 1, &[(2, 9)]), Ok(()), "it may have been farther");
        let seen = [put(5, 10, 20), unknown_put(7, 30), get(7, 50, 60)];
        assert_eq!(judge(&seen, 3, &[(1, 7)]), Ok(()));
        let stale = judge(&seen, 3, &[(1, 5)]).unwrap_err();
        assert!(matches!(stale, Violation::Overwritten { point: 1, .. }), "{stale}");
    }

    #[test]
    fn what_may_have_been_deleted_need_not_be_found() {
        for touched in [
            vec![unknown_delete(5), put(5, 10, 20)],
            vec![put(5, 10, 20), unknown_delete(30)],
            vec![put(5, 10, 20), delete(15, 40)],
            vec![put(5, 10, 20), delete(105, 130)],
            vec![put(5, 10, 20), delete(15, 18)],
        ] {
            assert_eq!(judge(&touched, 3, &[]), Ok(()), "{touched:?}");
            assert_eq!(judge(&touched, 3, &[(1, 5)]), Ok(()), "{touched:?}");
        }
        for untouched in [
            vec![delete(1, 5), put(5, 10, 20)],
            vec![put(5, 10, 20), delete(120, 130)],
            vec![put(5, 10, 20), refused_put(7, 30)],
        ] {
            let missing = judge(&untouched, 3, &[]).unwrap_err();
            assert!(matches!(missing, Violation::Missing { point: 1, .. }), "{missing}");
        }
    }

    #[test]
    fn what_nobody_put_is_not_found() {
        assert_eq!(judge(&[put(5, 105, 130)], 3, &[(1, 5)]), Ok(()), "put while it was searched");
        for operations in [vec![], vec![put(5, 120, 130)], vec![refused_put(5, 10)], vec![put(5, 10, 20).of(2)]] {
            let nowhere = judge(&operations, 1, &[(1, 5)]).unwrap_err();
            assert!(matches!(nowhere, Violation::NotYetPut { point: 1, value: 5, .. }), "{nowhere}");
        }
    }

    #[test]
    fn hits_are_in_order_each_once_and_no_more_than_asked_for() {
        let operations = [put(5, 10, 20), put(7, 10, 20).of(2)];
        assert_eq!(
            judge(&operations, 2, &[(2, 7), (1, 5)]),
            Err(Violation::OutOfOrder { index: 1, point: 1, score: 5, before: 7 })
        );
        assert_eq!(judge(&operations, 2, &[(1, 5), (1, 5)]), Err(Violation::PointTwice { point: 1 }));
        assert_eq!(judge(&operations, 1, &[(1, 5), (2, 7)]), Err(Violation::TooMany { hits: 2, k: 1 }));
    }
}
