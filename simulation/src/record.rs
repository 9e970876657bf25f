//! What is written down of a run: what its clients did and saw, which versions there were, and what was found wrong.

use std::collections::BTreeMap;
use std::fmt;

use vecino_mesh::message::Reply;
use vecino_mesh::time::Time;
use vecino_model::error::Retry;
use vecino_model::message::{RawSearchReply, Stamped};
use vecino_model::{NodeId, Outcome, PointId, Version};

use crate::checkers::history::{History, Kind, OperationNumber};
use crate::checkers::search::{Hit, Search};
use crate::checkers::versions::{Place, Versions};
use crate::client::{Doing, Ended};
use crate::plan::Deed;
use crate::value;

/// What was found wrong with a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker found it.
    pub checker: &'static str,
    /// What it is.
    pub told: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.told)
    }
}

/// The search of a client that is under way, and what it asked for.
pub(crate) struct SearchOf {
    pub search: Search,
    pub place: u64,
}

/// What is written down.
pub(crate) struct Record {
    is_traced: bool,
    pub lines: Vec<String>,
    tick: u64,
    pub history: History,
    open: BTreeMap<u64, OperationNumber>,
    pub searches: Vec<SearchOf>,
    versions: Versions,
    /// The newest version of each point whose write was acknowledged.
    pub acknowledged: BTreeMap<u64, Version>,
    pub violation: Option<Violation>,
    /// The versions that were given at level `one`, as they came.
    pub stamps: Vec<Version>,
    /// How long deeds took.
    pub took: Vec<std::time::Duration>,
    /// When the last of them ended.
    pub ended_at: Time,
}

impl Record {
    pub(crate) fn new(is_traced: bool) -> Self {
        Self {
            is_traced,
            lines: Vec::new(),
            tick: 0,
            history: History::default(),
            open: BTreeMap::new(),
            searches: Vec::new(),
            versions: Versions::default(),
            acknowledged: BTreeMap::new(),
            violation: None,
            stamps: Vec::new(),
            took: Vec::new(),
            ended_at: Time::default(),
        }
    }

    pub(crate) fn trace(&mut self, now: Time, what: impl FnOnce() -> String) {
        if self.is_traced {
            self.lines.push(format!("{now} {}", what()));
        }
    }

    /// Something is wrong; the first thing counts.
    pub(crate) fn fail(&mut self, checker: &'static str, told: String) {
        self.violation.get_or_insert(Violation { checker, told });
    }

    /// Times of operations are numbers of what was written down, so that no two are equal.
    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// A client begins something; gives the number to tell its end by.
    pub(crate) fn begin(&mut self, client: usize, deed: Deed, value: u64) -> u64 {
        let now = self.tick();
        let operation = match deed {
            Deed::Put(point) | Deed::PutAt(point, _) => Some((point, Kind::Put(value))),
            Deed::Delete(point) => Some((point, Kind::Delete)),
            Deed::Get(point) => Some((point, Kind::Get(None))),
            Deed::Search(..) | Deed::StampOne(_) => None,
        };
        if let Some((point, kind)) = operation {
            let number = self.history.begin(client, point, kind, now);
            self.open.insert(now, number);
        }
        now
    }

    /// What a client began has ended; whether it did what it was to do.
    pub(crate) fn end(&mut self, client: usize, doing: &Doing, ended: &Ended) -> bool {
        let now = self.tick();
        let open = self.open.remove(&doing.began);
        match (ended, doing.deed, open) {
            (Ended::Written(result), Deed::Put(point) | Deed::PutAt(point, _) | Deed::Delete(point), Some(number)) => {
                let outcome = match result {
                    Ok(outcomes) => outcomes.first().cloned(),
                    Err(failed) if failed.retry == Retry::Unknown => None,
                    Err(failed) => Some(Outcome::Unavailable(failed.error.message.clone())),
                };
                match outcome {
                    Some(Outcome::Written(version)) => {
                        self.history.done(number, now);
                        let value = matches!(doing.deed, Deed::Put(_) | Deed::PutAt(..)).then_some(doing.value);
                        self.observe(point, version, value, Place::Answer(client));
                        let newest = self.acknowledged.entry(point).or_insert(version);
                        *newest = (*newest).max(version);
                        return true;
                    }
                    Some(Outcome::Refused(_) | Outcome::Unavailable(_)) => self.history.nothing(number, now),
                    Some(Outcome::Unknown(_)) | None => self.history.unknown(number, now),
                }
                false
            }
            (Ended::Read(Ok(answered)), Deed::Get(point), Some(number)) => {
                let Reply::Points(points) = &answered.reply else { return false };
                let stored = points.first().cloned().flatten();
                let seen = stored.as_ref().and_then(|stored| value::value_in(&stored.payload));
                self.history.read(number, seen, now);
                if let Some(stored) = stored {
                    self.observe(point, stored.version, seen, Place::Answer(client));
                }
                true
            }
            (Ended::Read(Ok(answered)), Deed::Search(k, place), _) => {
                let Reply::Found(found) = &answered.reply else { return false };
                self.searched(client, (doing.began, now), (k, place), found);
                true
            }
            (Ended::Read(Ok(answered)), Deed::StampOne(_), _) => {
                let Reply::Stamps(stamps) = &answered.reply else { return false };
                let [Stamped::Version(stamp)] = stamps[..] else { return false };
                self.stamps.push(stamp);
                true
            }
            (_, _, Some(number)) => {
                self.history.unknown(number, now);
                false
            }
            (_, _, None) => false,
        }
    }

    fn searched(&mut self, client: usize, (began, ended): (u64, u64), (k, place): (u32, u64), found: &RawSearchReply) {
        let mut hits = Vec::new();
        for hit in &found.hits {
            let (PointId::Number(point), Some(value)) = (&hit.id, hit.payload.as_ref().and_then(value::value_in))
            else {
                return self.fail("search", format!("a hit without a value: {hit:?}"));
            };
            self.observe(*point, hit.version, Some(value), Place::Answer(client));
            hits.push(Hit { point: *point, value });
        }
        self.searches.push(SearchOf { search: Search { client, began, ended, k: k as usize, hits }, place });
    }

    /// A replica applied a record.
    pub(crate) fn applied(&mut self, node: NodeId, record: &vecino_model::Record) {
        if let PointId::Number(point) = record.id {
            self.observe(point, record.version, value::value_of(record), Place::Replica(node));
        }
    }

    fn observe(&mut self, point: u64, version: Version, value: Option<u64>, place: Place) {
        if let Err(two) = self.versions.observe(point, version, value, place) {
            self.fail("versions", two.to_string());
        }
    }

    /// The collection is dropped and made again: all its points are deleted meanwhile. Gives the number to tell the end by.
    pub(crate) fn begin_drop(&mut self, client: usize, points: u64) -> u64 {
        let first = self.tick + 1;
        for point in 0..points {
            let now = self.tick();
            let number = self.history.begin(client, point, Kind::Delete, now);
            self.open.insert(now, number);
        }
        // What was acknowledged before is gone.
        self.acknowledged.clear();
        first
    }

    /// It is made again.
    pub(crate) fn end_drop(&mut self, first: u64, points: u64, is_done: bool) {
        let now = self.tick();
        for began in first..first + points {
            if let Some(number) = self.open.remove(&began).filter(|_| is_done) {
                self.history.done(number, now);
            }
        }
    }
}

/// What a deed came to, in few words.
pub(crate) fn told(ended: &Ended) -> String {
    let text = match ended {
        Ended::Written(Ok(outcomes)) => format!("{outcomes:?}"),
        Ended::Written(Err(failed)) | Ended::Read(Err(failed)) => {
            format!("{} ({:?}): {}", failed.error.code.name(), failed.retry, failed.error)
        }
        Ended::Read(Ok(answered)) => format!("{:?}", answered.reply),
    };
    text.chars().take(300).collect()
}
