//! The nodes that a client knows: how quick they are, who is silent, who is asked first; and how often one may be asked
//! beside another.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::peers::{LATE_MAX, LATE_MIN};
use crate::time::Time;

/// How often a silent node is asked whether it answers again.
pub const PROBE_EVERY: Duration = Duration::from_millis(500);
/// A node that has not answered within this multiple of its usual time is late.
const LATE_FACTOR: u32 = 3;
/// Requests that must be answered for each that is sent to a second node.
const ANSWERS_PER_HEDGE: u32 = 10;
/// Most requests to second nodes that can be saved up. When a node dies, every request that waits for it needs one.
const HEDGES_MAX: u32 = 64;

/// The nodes of a mesh by their places in a list, which only grows. Shared by the requests of a client.
#[derive(Debug, Default)]
pub struct Nodes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: Vec<Place>,
    /// The node that answered last: it is asked first.
    preferred: usize,
    /// Answers that pay for requests to second nodes.
    credit: u32,
}

#[derive(Debug, Default)]
struct Place {
    usual: BTreeMap<u16, Duration>,
    is_silent: bool,
    /// When something last came on its connection, whatever it was.
    heard: Time,
    /// Until when it has asked to be sent no large request.
    rests_until: Time,
}

impl Nodes {
    /// This number of nodes.
    pub fn new(count: usize) -> Self {
        let places = (0..count).map(|_| Place::default()).collect();
        Self { state: Mutex::new(State { places, preferred: 0, credit: HEDGES_MAX * ANSWERS_PER_HEDGE }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of nodes.
    pub fn count(&self) -> usize {
        self.lock().places.len()
    }

    /// There are this many nodes by now.
    pub fn grow(&self, count: usize) {
        let mut state = self.lock();
        while state.places.len() < count {
            state.places.push(Place::default());
        }
    }

    /// The node to ask first: the one that answered last, or the next one that is not silent.
    pub fn first(&self) -> usize {
        let state = self.lock();
        let places = state.places.len().max(1);
        let in_turn = (0..places).map(|step| (state.preferred + step) % places);
        let answers = |place: &usize| state.places.get(*place).is_some_and(|place| !place.is_silent);
        in_turn.clone().find(answers).unwrap_or(state.preferred)
    }

    /// After what time a node is late with a request of this kind.
    pub fn late_after(&self, place: usize, kind: u16) -> Duration {
        let usual = self.lock().places.get(place).and_then(|place| place.usual.get(&kind).copied());
        usual.map_or(LATE_MAX, |usual| (usual * LATE_FACTOR).clamp(LATE_MIN, LATE_MAX))
    }

    /// A node answered a request of this kind.
    pub fn answered(&self, place: usize, kind: u16, took: Duration) {
        let mut state = self.lock();
        state.preferred = place;
        state.credit = (state.credit + 1).min(HEDGES_MAX * ANSWERS_PER_HEDGE);
        let Some(place) = state.places.get_mut(place) else { return };
        place.is_silent = false;
        let usual = place.usual.entry(kind).or_insert(took);
        // An eighth of what is new, as TCP smooths its round trips (RFC 6298).
        *usual = (*usual * 7 + took) / 8;
    }

    /// A node answers again, whatever it was asked.
    pub fn is_there(&self, place: usize) {
        if let Some(place) = self.lock().places.get_mut(place) {
            place.is_silent = false;
        }
    }

    /// Something came from a node on its connection, be it an acknowledgement: it is alive, however long it takes for its
    /// answers.
    pub fn was_heard(&self, place: usize, now: Time) {
        if let Some(place) = self.lock().places.get_mut(place) {
            place.heard = place.heard.max(now);
        }
    }

    /// When a node that was asked at `since`, and from which nothing more comes, has been quiet for too long.
    pub fn quiet_at(&self, place: usize, since: Time) -> Time {
        let heard = self.lock().places.get(place).map_or(since, |place| place.heard);
        heard.max(since) + LATE_MAX
    }

    /// A node has too much to do, and asked to be sent nothing large until then.
    pub fn rests(&self, place: usize, until: Time) {
        if let Some(place) = self.lock().places.get_mut(place) {
            place.rests_until = place.rests_until.max(until);
        }
    }

    /// Until when each node has asked to be sent nothing large.
    pub fn resting(&self) -> Vec<Time> {
        self.lock().places.iter().map(|place| place.rests_until).collect()
    }

    /// A node was late: it is asked last until it answers.
    pub fn was_late(&self, place: usize) {
        if let Some(place) = self.lock().places.get_mut(place) {
            place.is_silent = true;
        }
    }

    /// Whether a node was late and has not answered since.
    pub fn is_silent(&self, place: usize) -> bool {
        self.lock().places.get(place).is_some_and(|place| place.is_silent)
    }

    /// The nodes that were late and have not answered since.
    pub fn silent(&self) -> Vec<usize> {
        let state = self.lock();
        (0..state.places.len()).filter(|place| state.places[*place].is_silent).collect()
    }

    /// Whether one more request may go to a second node.
    pub fn take_hedge(&self) -> bool {
        let mut state = self.lock();
        let paid = state.credit.checked_sub(ANSWERS_PER_HEDGE);
        state.credit = paid.unwrap_or(state.credit);
        paid.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_late_is_asked_last_until_it_answers() {
        let nodes = Nodes::new(3);
        nodes.answered(1, 6, Duration::from_millis(10));
        assert_eq!(nodes.first(), 1);
        nodes.was_late(1);
        assert_eq!((nodes.first(), nodes.silent()), (2, vec![1]));
        nodes.is_there(1);
        assert_eq!(nodes.first(), 1);
    }

    #[test]
    fn a_node_is_late_after_three_times_its_usual_time_within_bounds() {
        let nodes = Nodes::new(1);
        assert_eq!(nodes.late_after(0, 6), LATE_MAX);
        nodes.answered(0, 6, Duration::from_millis(20));
        assert_eq!(nodes.late_after(0, 6), Duration::from_millis(60));
        nodes.answered(0, 9, Duration::from_micros(100));
        assert_eq!(nodes.late_after(0, 9), LATE_MIN);
        nodes.answered(0, 7, Duration::from_secs(3));
        assert_eq!(nodes.late_after(0, 7), LATE_MAX);
    }

    #[test]
    fn a_node_is_quiet_when_nothing_has_come_for_as_long_as_the_slowest_may_take() {
        let nodes = Nodes::new(2);
        let asked = Time::default() + Duration::from_secs(1);
        assert_eq!(nodes.quiet_at(0, asked), asked + LATE_MAX);
        nodes.was_heard(0, asked + LATE_MAX / 2);
        nodes.was_heard(0, asked);
        assert_eq!(nodes.quiet_at(0, asked), asked + LATE_MAX / 2 + LATE_MAX);
        assert_eq!(nodes.quiet_at(1, asked), asked + LATE_MAX, "each node is heard by itself");
    }

    #[test]
    fn one_request_in_ten_may_go_to_a_second_node() {
        let nodes = Nodes::new(2);
        let taken = (0..100).filter(|_| nodes.take_hedge()).count();
        assert_eq!(taken, HEDGES_MAX as usize, "what was saved up");
        for _ in 0..ANSWERS_PER_HEDGE {
            assert!(!nodes.take_hedge());
            nodes.answered(0, 6, Duration::ZERO);
        }
        assert!(nodes.take_hedge());
        assert!(!nodes.take_hedge());
    }
}
