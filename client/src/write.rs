//! Batches of writes, and how their parts are asked for.

use vecino_model::{Level, Outcome, PointId, RawPoint, Version};
use vecino_net::message::{Delete, Put, Rpc, Stamp};

/// A request whose answer has one outcome for each of its points.
pub trait Batch: Rpc<Reply = Vec<Outcome>> + Sync {
    /// Number of points.
    fn count(&self) -> usize;
    /// About how many bytes they take on their way.
    fn bytes(&self) -> usize;
    /// The points' ids, in their order.
    fn ids(&self) -> Vec<PointId>;
    /// The same request, which waits for as many replicas as this level says.
    fn at_level(self, level: Level) -> Self;
    /// The same request for some of its points, with their versions where there are some.
    fn part(&self, places: &[usize], stamps: Vec<Version>) -> Self;
    /// What asks for the versions of some of its points.
    fn stamp(&self, places: &[usize]) -> Stamp;
}

impl Batch for Put {
    fn count(&self) -> usize {
        self.points.len()
    }

    fn bytes(&self) -> usize {
        self.points.iter().map(RawPoint::bytes).sum()
    }

    fn ids(&self) -> Vec<PointId> {
        self.points.iter().map(|point| point.id.clone()).collect()
    }

    fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    fn part(&self, places: &[usize], stamps: Vec<Version>) -> Self {
        let Self { collection, points, level, stamps: _ } = self;
        let points = places.iter().map(|place| points[*place].clone()).collect();
        Self { collection: collection.clone(), points, level: *level, stamps }
    }

    fn stamp(&self, places: &[usize]) -> Stamp {
        let ids = places.iter().map(|place| self.points[*place].id.clone()).collect();
        Stamp { collection: self.collection.clone(), ids, level: self.level }
    }
}

impl Batch for Delete {
    fn count(&self) -> usize {
        self.ids.len()
    }

    fn bytes(&self) -> usize {
        self.ids.iter().map(PointId::bytes).sum()
    }

    fn ids(&self) -> Vec<PointId> {
        self.ids.clone()
    }

    fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    fn part(&self, places: &[usize], stamps: Vec<Version>) -> Self {
        let Self { collection, ids, level, stamps: _ } = self;
        let ids = places.iter().map(|place| ids[*place].clone()).collect();
        Self { collection: collection.clone(), ids, level: *level, stamps }
    }

    fn stamp(&self, places: &[usize]) -> Stamp {
        let ids = places.iter().map(|place| self.ids[*place].clone()).collect();
        Stamp { collection: self.collection.clone(), ids, level: self.level }
    }
}
