//! The register of one point as a model: what may happen next, and what becomes of it.
//!
//! A message may be delivered at any time after it was sent, or never, and so may its answer: a loss needs no step of
//! its own. Messages that can no longer make a difference are forgotten: the versions and records that a machine has
//! heard enough of, and writes that are older than what their replica has and that nobody waits for.

use std::collections::BTreeSet;

use stateright::{Model, Property};
use vecino_mesh::quorum::{Replicas, read, write};
use vecino_model::{Outcome, Version};
use vecino_simulation::checkers::history::{self, Kind, Operation};
use vecino_simulation::checkers::linearizable;

use crate::machine::{Commands, Event, Running};
use crate::state::{
    Action, Content, FIRST_GET, Message, REPEAT, REPLICAS, SECOND_WRITER, Slot, State, WRITERS, index_of, node,
    replica, value_of,
};

/// Which rule is broken, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Kept,
    ReadsDoNotWriteBack,
    WritesDoNotAsk,
    RepeatsAreStampedAnew,
    OneReplicaAcknowledges,
}

/// One point, its clients, and how much of the world is looked at.
#[derive(Clone, Debug)]
pub struct Register {
    pub rules: Rules,
    /// How many of the writers put their value, each once.
    pub puts: usize,
    /// How many gets the reader makes, one after the other.
    pub gets: usize,
    /// Whether the first writer may send its put again, by another node.
    pub repeats: bool,
    /// Whether the reader may ask more replicas than it needs.
    pub hedges: bool,
    /// Whether answers are on their way for as long as they like. If not, a request is answered when it is delivered:
    /// an answer that is late or lost only keeps its client waiting, and less is promised to one that waits.
    pub answers_travel: bool,
}

/// The replicas of the one point of a batch.
fn every_replica() -> Replicas {
    vec![(0..REPLICAS).map(replica).collect()]
}

impl Register {
    fn begin(&self, state: &mut State, slot: Slot) {
        if state.has_one_ended {
            state.now += 1;
            state.has_one_ended = false;
        }
        let (client, kind) = match slot {
            0 => (0, Kind::Put(1)),
            SECOND_WRITER => (1, Kind::Put(2)),
            _ => (WRITERS, Kind::Get(None)),
        };
        let (began, outcome) = (state.now, history::Outcome::Unknown);
        state.operations[slot] = Some(Operation { client, point: 0, kind, began, ended: None, outcome });
        if slot < FIRST_GET {
            self.write(state, slot);
        } else {
            // Each get would like to read elsewhere.
            let first = 2 * (slot - FIRST_GET);
            let replicas = vec![(first..first + REPLICAS).map(|index| replica(index % REPLICAS)).collect()];
            let (machine, commands) = match self.rules {
                Rules::ReadsDoNotWriteBack => Running::versions(replicas),
                _ => Running::records(replicas),
            };
            state.machines[slot] = machine;
            self.carry_out(state, slot, commands);
        }
    }

    /// Begins to write: with the stamp that the put has, or by asking for one.
    fn write(&self, state: &mut State, slot: Slot) {
        let kept = state.kept.filter(|_| slot == REPEAT && self.rules != Rules::RepeatsAreStampedAnew);
        if let Some(stamp) = kept {
            return self.write_stamped(state, slot, stamp);
        }
        if self.rules == Rules::WritesDoNotAsk {
            // As if a majority had said that it knows of nothing.
            return self.stamp(state, slot, Version::ZERO);
        }
        let (machine, commands) = Running::asking(every_replica());
        state.machines[slot] = machine;
        self.carry_out(state, slot, commands);
    }

    /// The client learns its stamp, and has the put written with it.
    ///
    /// Clocks are of no help: a stamp is as far above the newest version that was heard of as it must be.
    fn stamp(&self, state: &mut State, slot: Slot, newest: Version) {
        let writer = if slot == SECOND_WRITER { 2 } else { 1 };
        let stamp = Version { time: newest.time + 1, node: node(writer), seq: slot as u64 };
        if slot == 0 {
            state.kept = Some(stamp);
        }
        self.write_stamped(state, slot, stamp);
    }

    fn write_stamped(&self, state: &mut State, slot: Slot, stamp: Version) {
        let counts_one = self.rules == Rules::OneReplicaAcknowledges;
        let (machine, commands) = Running::stamped(every_replica(), stamp, counts_one);
        state.machines[slot] = machine;
        self.carry_out(state, slot, commands);
    }

    /// Tells a machine of something, and does what it then wants.
    fn tell(&self, state: &mut State, slot: Slot, event: Event) {
        let commands = state.machines[slot].on(event);
        self.carry_out(state, slot, commands);
    }

    fn carry_out(&self, state: &mut State, slot: Slot, commands: Commands) {
        match commands {
            Commands::OfWrite(commands) => commands.into_iter().for_each(|command| self.write_on(state, slot, command)),
            Commands::OfRead(commands) => commands.into_iter().for_each(|command| self.read_on(state, slot, command)),
        }
    }

    fn write_on(&self, state: &mut State, slot: Slot, command: write::Command) {
        match command {
            write::Command::AskVersions { node, .. } => {
                let replica = index_of(node);
                state.messages.insert(Message { slot, replica, content: Content::AskVersion });
            }
            write::Command::Stamp { points } => {
                // Answers that come later change nothing: nobody waits for them.
                state.messages.retain(|message| message.slot != slot);
                self.stamp(state, slot, points[0].1);
            }
            write::Command::Write { node, send, .. } => {
                let version = state.machines[slot].stamp().expect("stamped before it is written");
                let content = Content::Apply { version, send };
                state.messages.insert(Message { slot, replica: index_of(node), content });
            }
            write::Command::Finish => {
                let outcome = state.machines[slot].finish_write();
                assert!(matches!(outcome, Outcome::Written(_)), "no replica fails here: {outcome:?}");
                let operation = if slot == REPEAT { 0 } else { slot };
                self.end(state, operation, None);
            }
        }
    }

    fn read_on(&self, state: &mut State, slot: Slot, command: read::Command) {
        let (node, content) = match command {
            read::Command::Read { node, .. } => (node, Content::Read),
            read::Command::WriteBack { node, .. } => {
                let is_of_reading = |message: &Message| {
                    message.slot == slot && matches!(message.content, Content::Read | Content::Has { .. })
                };
                state.messages.retain(|message| !is_of_reading(message));
                let version = state.machines[slot].newest().expect("something to write back");
                (node, Content::Apply { version, send: 0 })
            }
            read::Command::Finish => {
                let newest = state.machines[slot].finish_read();
                return self.end(state, slot, Some(Kind::Get(newest.map(value_of))));
            }
        };
        state.messages.insert(Message { slot, replica: index_of(node), content });
    }

    /// A client knows of the outcome, and what a get saw.
    fn end(&self, state: &mut State, slot: Slot, seen: Option<Kind>) {
        let now = state.now;
        let Some(operation) = state.operations[slot].as_mut().filter(|operation| operation.ended.is_none()) else {
            return;
        };
        operation.kind = seen.unwrap_or(operation.kind);
        operation.ended = Some(now);
        operation.outcome = history::Outcome::Done;
        state.has_one_ended = true;
        state.is_linearizable &= linearizable::check(&state.history()).is_ok();
    }

    fn deliver(&self, state: &mut State, message: Message) {
        let Message { slot, replica, content } = message;
        state.messages.remove(&message);
        let held = &mut state.replicas[replica];
        let answer = match content {
            Content::AskVersion | Content::Read => Content::Has { version: *held },
            Content::Apply { version, send } => {
                let newest = (*held).max(Some(version)).unwrap_or(version);
                *held = Some(newest);
                Content::Applied { version: newest, send }
            }
            Content::Has { .. } | Content::Applied { .. } => return self.answer(state, message),
        };
        let answer = Message { slot, replica, content: answer };
        if self.answers_travel {
            state.messages.insert(answer);
        } else {
            self.answer(state, answer);
        }
    }

    fn answer(&self, state: &mut State, Message { slot, replica: index, content }: Message) {
        let from = replica(index);
        let event = match content {
            Content::Has { version } => Event::Has(from, version),
            Content::Applied { version, send } if slot < FIRST_GET => Event::Written(send, version),
            Content::Applied { version, .. } => Event::WrittenBack(from, version),
            Content::AskVersion | Content::Read | Content::Apply { .. } => return,
        };
        self.tell(state, slot, event);
    }

    /// Forgets messages that can no longer make a difference.
    fn forget(&self, state: &mut State) {
        let State { messages, machines, replicas, .. } = state;
        messages.retain(|message| {
            let is_waited_for = !machines[message.slot].is_idle();
            match message.content {
                Content::Apply { version, .. } => is_waited_for || replicas[message.replica] < Some(version),
                _ => is_waited_for,
            }
        });
    }
}

impl Model for Register {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let slots = FIRST_GET + self.gets;
        vec![State {
            replicas: [None; REPLICAS],
            machines: vec![Running::default(); slots],
            hedged: vec![false; slots],
            messages: BTreeSet::new(),
            kept: None,
            operations: vec![None; slots],
            now: 0,
            has_one_ended: false,
            is_linearizable: true,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.has_ended(FIRST_GET + self.gets - 1) {
            // Nobody looks any more.
            return;
        }
        let writers = [0, SECOND_WRITER].into_iter().take(self.puts);
        let may_begin = |slot: &Slot| {
            let is_next = *slot <= FIRST_GET || state.has_ended(*slot - 1);
            state.operations[*slot].is_none() && is_next
        };
        actions.extend(writers.chain(FIRST_GET..FIRST_GET + self.gets).filter(may_begin).map(Action::Begin));
        if self.repeats && state.kept.is_some() && !state.has_ended(0) && state.machines[REPEAT].is_idle() {
            actions.push(Action::Repeat);
        }
        let gets = FIRST_GET..FIRST_GET + self.gets;
        let may_hedge = |slot: &Slot| self.hedges && !state.hedged[*slot] && !state.machines[*slot].is_idle();
        actions.extend(gets.filter(may_hedge).map(Action::Hedge));
        actions.extend(state.messages.iter().copied().map(Action::Deliver));
    }

    fn next_state(&self, last_state: &State, action: Action) -> Option<State> {
        let mut state = last_state.clone();
        match action {
            Action::Begin(slot) => self.begin(&mut state, slot),
            Action::Repeat => self.write(&mut state, REPEAT),
            Action::Hedge(slot) => {
                state.hedged[slot] = true;
                self.tell(&mut state, slot, Event::Hedge);
            }
            Action::Deliver(message) => self.deliver(&mut state, message),
        }
        self.forget(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::<Self>::always("linearizable", |_, state| state.is_linearizable)];
        if self.rules != Rules::Kept {
            return properties;
        }
        // What has to happen for the model to say something.
        properties.push(Property::sometimes("everything ends", |model: &Self, state: &State| {
            let history = state.history();
            let ended = history.iter().filter(|operation| operation.done_at().is_some());
            ended.count() == model.puts + model.gets
        }));
        properties.push(Property::sometimes("an unfinished put is seen", |_, state: &State| {
            !state.has_ended(0) && state.history().iter().any(|operation| operation.read() == Some(Some(1)))
        }));
        if self.puts > 1 && self.gets > 1 {
            properties.push(Property::sometimes("one value is seen after the other", |_, state: &State| {
                let seen: Vec<_> = state.history().iter().filter_map(|operation| operation.read()?).collect();
                seen == [1, 2]
            }));
        }
        if self.repeats {
            properties.push(Property::sometimes("a repetition ends the put", |_, state: &State| {
                state.has_ended(0) && !state.machines[0].is_idle() && state.machines[REPEAT].is_idle()
            }));
        }
        properties
    }
}
