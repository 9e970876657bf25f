//! Decides from what gossip shows who is up. Pure: observations and the time that passed go in, a [`View`] comes out.
//!
//! A node is up while its heartbeat goes on rising. chitchat has a failure detector of its own, but its patience is a
//! multiple of the mean interval between heartbeats, which depends on the size of the mesh and on load; a fixed one gives
//! the same bound everywhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vecino_model::{LOOP_GENERATION_BITS, Member, NodeId, NodeState, Observation, View};

/// Rises of the heartbeat before a node counts as up. The first sight of a heartbeat says nothing about when it was
/// made, and a second value may come from a member that remembers a little more of a dead node.
const RISES_MIN: u32 = 2;
/// Remembers what was observed of each node.
pub struct Roster {
    own: NodeId,
    down_after: Duration,
    elapsed_max: Duration,
    heard: BTreeMap<NodeId, Heard>,
    view: Arc<View>,
}

struct Heard {
    generation: u64,
    heartbeat: u64,
    rises: u32,
    silent_for: Duration,
    member: Option<Member>,
}

impl Roster {
    /// `down_after`: how long a heartbeat may stand still. `elapsed_max`: the most time that counts between two
    /// observations. Whoever was kept from observing for longer was not there to hear the others either, and must not
    /// take its own absence for theirs.
    pub fn new(own: NodeId, down_after: Duration, elapsed_max: Duration) -> Self {
        Self { own, down_after, elapsed_max, heard: BTreeMap::new(), view: Arc::default() }
    }

    /// The roster as a function: takes what [`Roster::observe`] takes, and gives the view where it changed.
    pub fn into_decider(
        mut self,
    ) -> impl FnMut(Duration, Member, Vec<(NodeId, Observation)>) -> Option<Arc<View>> + Send {
        move |elapsed, myself, seen| self.observe(elapsed, myself, seen).then(|| Arc::clone(&self.view))
    }

    /// What is known by now.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Takes in what gossip shows `elapsed` after the last time, and says whether the view changed.
    pub fn observe(
        &mut self,
        elapsed: Duration,
        myself: Member,
        observations: impl IntoIterator<Item = (NodeId, Observation)>,
    ) -> bool {
        let elapsed = elapsed.min(self.elapsed_max);
        for heard in self.heard.values_mut() {
            heard.silent_for = heard.silent_for.saturating_add(elapsed);
        }
        for (id, observation) in observations {
            if id != self.own {
                self.hear(id, observation);
            }
        }
        let mut members = BTreeMap::from([(self.own, Member { state: NodeState::Up, ..myself })]);
        for (id, heard) in &mut self.heard {
            if heard.silent_for >= self.down_after {
                heard.rises = 0;
            }
            if let Some(member) = &heard.member {
                let state = if heard.is_up() { NodeState::Up } else { NodeState::Down };
                members.insert(*id, Member { state, ..member.clone() });
            }
        }
        let changed = self.view.members != members;
        if changed {
            self.view = Arc::new(View { members });
        }
        changed
    }

    fn hear(&mut self, id: NodeId, observation: Observation) {
        let Observation { generation, heartbeat, member } = observation;
        let heard = self.heard.entry(id).or_insert(Heard {
            generation,
            heartbeat,
            rises: 0,
            silent_for: Duration::ZERO,
            member: None,
        });
        if generation < heard.generation {
            return;
        }
        if generation > heard.generation {
            if generation >> LOOP_GENERATION_BITS != heard.generation >> LOOP_GENERATION_BITS {
                // A new life: it counts once its own tokens have arrived and its own heart beats.
                heard.rises = 0;
                heard.silent_for = Duration::ZERO;
            }
            heard.generation = generation;
            heard.heartbeat = heartbeat;
        } else if heartbeat > heard.heartbeat {
            heard.heartbeat = heartbeat;
            heard.rises = heard.rises.saturating_add(1);
            heard.silent_for = Duration::ZERO;
        }
        if member.is_some() {
            heard.member = member;
        }
    }
}

impl Heard {
    fn is_up(&self) -> bool {
        let tokens_of_this_life =
            self.member.as_ref().is_some_and(|member| member.generation == self.generation >> LOOP_GENERATION_BITS);
        self.rises >= RISES_MIN && tokens_of_this_life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(200);
    const OWN: NodeId = NodeId::from_bytes([0; 16]);
    const OTHER: NodeId = NodeId::from_bytes([1; 16]);

    fn roster() -> Roster {
        Roster::new(OWN, Duration::from_millis(1_800), TICK * 2)
    }

    fn member(id: NodeId, generation: u64) -> Member {
        Member {
            id,
            address: "127.0.0.1:1".parse().unwrap(),
            state: NodeState::Down,
            tokens: vec![generation],
            generation,
            name: String::new(),
            software: String::new(),
            points: 0,
            bytes: 0,
            catalog_digest: String::new(),
        }
    }

    fn seen(generation: u64, heartbeat: u64, tokens: bool) -> (NodeId, Observation) {
        let member = tokens.then(|| member(OTHER, generation));
        (OTHER, Observation { generation: generation << LOOP_GENERATION_BITS, heartbeat, member })
    }

    fn state(roster: &Roster) -> Option<NodeState> {
        roster.view().members.get(&OTHER).map(|member| member.state)
    }

    #[test]
    fn a_node_is_up_once_its_heart_has_risen_twice_and_its_tokens_are_there() {
        let mut roster = roster();
        let mut states = Vec::new();
        for (heartbeat, tokens) in [(5, false), (6, false), (7, false), (8, true)] {
            roster.observe(TICK, member(OWN, 1), [seen(1, heartbeat, tokens)]);
            states.push(state(&roster));
        }
        assert_eq!(states, [None, None, None, Some(NodeState::Up)]);
    }

    #[test]
    fn the_memory_of_a_dead_node_does_not_revive_it() {
        let mut roster = roster();
        for heartbeat in [100, 102] {
            roster.observe(TICK, member(OWN, 1), [seen(1, heartbeat, true)]);
        }
        assert_eq!(state(&roster), Some(NodeState::Down));
    }

    #[test]
    fn a_silent_node_is_down_after_its_patience_and_back_after_two_beats() {
        let mut roster = roster();
        for heartbeat in 0..3 {
            roster.observe(TICK, member(OWN, 1), [seen(1, heartbeat, true)]);
        }
        let ticks = (1..20).find(|_| {
            roster.observe(TICK, member(OWN, 1), [seen(1, 2, true)]);
            state(&roster) == Some(NodeState::Down)
        });
        assert_eq!(ticks, Some(9), "1.8 s are nine ticks");
        roster.observe(TICK, member(OWN, 1), [seen(1, 3, true)]);
        assert_eq!(state(&roster), Some(NodeState::Down));
        roster.observe(TICK, member(OWN, 1), [seen(1, 4, true)]);
        assert_eq!(state(&roster), Some(NodeState::Up));
    }

    #[test]
    fn an_observer_that_was_asleep_does_not_take_the_others_for_dead() {
        let mut roster = roster();
        for heartbeat in 0..3 {
            roster.observe(TICK, member(OWN, 1), [seen(1, heartbeat, true)]);
        }
        roster.observe(Duration::from_secs(60), member(OWN, 1), [seen(1, 2, true)]);
        assert_eq!(state(&roster), Some(NodeState::Up));
    }

    #[test]
    fn the_newest_life_counts_alone() {
        let mut roster = roster();
        for heartbeat in 0..3 {
            roster.observe(TICK, member(OWN, 1), [seen(1, heartbeat, true)]);
        }
        roster.observe(TICK, member(OWN, 1), [seen(1, 3, true), seen(2, 1, false)]);
        assert_eq!(state(&roster), Some(NodeState::Down), "the new life has no tokens yet");
        for heartbeat in 2..5 {
            roster.observe(TICK, member(OWN, 1), [seen(2, heartbeat, true), seen(1, 90 + heartbeat, true)]);
        }
        assert_eq!(state(&roster), Some(NodeState::Up));
        assert_eq!(roster.view().members[&OTHER].tokens, [2]);
    }

    #[test]
    fn a_restart_of_the_gossip_loop_alone_does_not_take_a_node_down() {
        let mut roster = roster();
        for heartbeat in 0..3 {
            roster.observe(TICK, member(OWN, 1), [seen(1, heartbeat, true)]);
        }
        let (id, mut observation) = seen(1, 1, true);
        observation.generation += 1;
        roster.observe(TICK, member(OWN, 1), [(id, observation)]);
        assert_eq!(state(&roster), Some(NodeState::Up));
    }

    #[test]
    fn a_node_that_gossip_has_forgotten_is_still_known_to_be_down() {
        let mut roster = roster();
        for heartbeat in 0..3 {
            roster.observe(TICK, member(OWN, 1), [seen(1, heartbeat, true)]);
        }
        for _ in 0..20 {
            roster.observe(TICK, member(OWN, 1), []);
        }
        assert_eq!(state(&roster), Some(NodeState::Down));
        assert!(!roster.observe(TICK, member(OWN, 1), []), "nothing changed");
    }
}
