//! The register that is decided once, model-checked: what acceptors and proposers of `mesh/src/register/` do in every order
//! of messages, which may be late, lost or come twice.
//!
//! A request may be delivered at any time after it was sent, or never, and where its answer is lost, its proposer only waits
//! for longer: so losses and crashes of proposers need no steps of their own. A request that comes twice changes nothing
//! where it is refused, so it comes again only where it is not. An acceptor that has answered only what was flushed loses
//! nothing in a crash; in the variants that are broken it does.

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, Model, Property};
use vecino_mesh::register::{Acceptor, Ballot, Command, End, Failure, Promise, Proposer};
use vecino_model::NodeId;

const ACCEPTORS: usize = 3;
const PROPOSERS: usize = 2;
/// What each proposer wants.
type Value = u8;

/// Which rule is broken, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Kept,
    /// An acceptor answers before it has flushed, and a crash takes its promise.
    PromisesAreForgotten,
    /// The same, and it takes what it accepted.
    AcceptedValuesAreForgotten,
    /// A proposer proposes what it wants, whatever others accepted.
    AcceptedValuesAreIgnored,
    /// Less than a majority is enough.
    AMinorityIsEnough,
    /// Two proposers have the same ballots.
    BallotsAreShared,
}

/// One register, and how much of the world is looked at.
#[derive(Clone, Debug)]
struct Decree {
    rules: Rules,
    /// Most attempts of each proposer.
    attempts: [u64; PROPOSERS],
    /// Whether requests may come again.
    comes_twice: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Content {
    Prepare,
    Accept(Value),
}

/// A request of an attempt to an acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Request {
    proposer: usize,
    ballot: Ballot,
    acceptor: usize,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    acceptors: Vec<Acceptor<Value>>,
    has_crashed: Vec<bool>,
    proposers: Vec<Option<Proposer<Value>>>,
    attempts: Vec<u64>,
    learned: Vec<Option<Value>>,
    /// Under way.
    requests: BTreeSet<Request>,
    /// Delivered once; they may come again.
    delivered: BTreeSet<Request>,
    /// Everything that was ever accepted, by whom: what a majority accepted under one ballot is chosen.
    votes: BTreeSet<(Ballot, Value, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Attempt(usize),
    /// A request arrives; whether its answer does, too.
    Deliver(Request, bool),
    Crash(usize),
}

fn acceptor(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8; 16])
}

impl State {
    fn chosen(&self) -> BTreeSet<Value> {
        let votes = |ballot: Ballot, value| {
            (0..ACCEPTORS).filter(|number| self.votes.contains(&(ballot, value, *number))).count()
        };
        let majority = |(ballot, value, _): &&(Ballot, Value, usize)| votes(*ballot, *value) > ACCEPTORS / 2;
        self.votes.iter().filter(majority).map(|(_, value, _)| *value).collect()
    }
}

impl Decree {
    fn begin(&self, state: &mut State, proposer: usize) {
        let id = if self.rules == Rules::BallotsAreShared { acceptor(9) } else { acceptor(proposer) };
        let acceptors = match self.rules {
            // As if one of them were all.
            Rules::AMinorityIsEnough => BTreeSet::from([acceptor(proposer)]),
            _ => (0..ACCEPTORS).map(acceptor).collect(),
        };
        let before = state.proposers[proposer].as_ref().map(Proposer::ballot);
        let ballot = Ballot::above(before, id);
        state.attempts[proposer] += 1;
        let (attempt, first) = Proposer::new(acceptors, ballot, proposer as Value);
        state.proposers[proposer] = Some(attempt);
        self.carry_out(state, proposer, first);
    }

    fn carry_out(&self, state: &mut State, proposer: usize, command: Command<Value>) {
        let ballot = state.proposers[proposer].as_ref().map(Proposer::ballot).unwrap();
        let (to, content) = match command {
            Command::Prepare { to } => (to, Content::Prepare),
            Command::Accept { to, value } => (to, Content::Accept(value)),
            Command::End(End::Chosen(value)) => {
                state.learned[proposer] = Some(value);
                return;
            }
            // It tries again when it likes, in any case.
            Command::End(End::Overtaken { .. } | End::NoMajority) => return,
        };
        let to = to.iter().map(|node| usize::from(node.as_bytes()[0]));
        state.requests.extend(to.map(|acceptor| Request { proposer, ballot, acceptor, content }));
    }

    fn deliver(&self, state: &mut State, request: Request, is_heard: bool) {
        let Request { proposer, ballot, acceptor: number, content } = request;
        state.requests.remove(&request);
        if self.comes_twice {
            state.delivered.insert(request);
        }
        let of = acceptor(number);
        let is_current = state.proposers[proposer].as_ref().is_some_and(|attempt| attempt.ballot() == ballot);
        let next = match content {
            Content::Prepare => {
                let ignores = self.rules == Rules::AcceptedValuesAreIgnored;
                let promise = state.acceptors[number].prepare(ballot);
                let promise = promise.map(|promise| if ignores { Promise { accepted: None } } else { promise });
                let attempt = state.proposers[proposer].as_mut().filter(|_| is_heard && is_current);
                attempt.and_then(|attempt| attempt.on_promise(of, promise.map_err(Failure::Refused)))
            }
            Content::Accept(value) => {
                let accepted = state.acceptors[number].accept(ballot, value);
                if accepted.is_ok() {
                    state.votes.insert((ballot, value, number));
                }
                let attempt = state.proposers[proposer].as_mut().filter(|_| is_heard && is_current);
                attempt.and_then(|attempt| attempt.on_accepted(of, accepted.map_err(Failure::Refused)))
            }
        };
        next.into_iter().for_each(|command| self.carry_out(state, proposer, command));
        // Whoever has learned the value asks nobody any more, and what would be refused changes nothing.
        let State { requests, delivered, acceptors, .. } = state;
        let matters = |request: &Request| acceptors[request.acceptor].promised <= Some(request.ballot);
        requests.retain(matters);
        delivered.retain(matters);
    }

    fn crash(&self, state: &mut State, number: usize) {
        state.has_crashed[number] = true;
        let acceptor = &mut state.acceptors[number];
        match self.rules {
            Rules::PromisesAreForgotten => acceptor.promised = acceptor.accepted.map(|(ballot, _)| ballot),
            Rules::AcceptedValuesAreForgotten => acceptor.accepted = None,
            _ => {}
        }
    }
}

impl Model for Decree {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            acceptors: vec![Acceptor::default(); ACCEPTORS],
            has_crashed: vec![false; ACCEPTORS],
            proposers: vec![None; PROPOSERS],
            attempts: vec![0; PROPOSERS],
            learned: vec![None; PROPOSERS],
            requests: BTreeSet::new(),
            delivered: BTreeSet::new(),
            votes: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let may_try = |proposer: &usize| {
            state.attempts[*proposer] < self.attempts[*proposer] && state.learned[*proposer].is_none()
        };
        actions.extend((0..PROPOSERS).filter(may_try).map(Action::Attempt));
        let requests = state.requests.iter().chain(&state.delivered);
        let ways = requests.flat_map(|request| [true, false].map(|is_heard| Action::Deliver(*request, is_heard)));
        actions.extend(ways);
        if matches!(self.rules, Rules::PromisesAreForgotten | Rules::AcceptedValuesAreForgotten) {
            actions.extend((0..ACCEPTORS).filter(|number| !state.has_crashed[*number]).map(Action::Crash));
        }
    }

    fn next_state(&self, last_state: &State, action: Action) -> Option<State> {
        let mut state = last_state.clone();
        match action {
            Action::Attempt(proposer) => self.begin(&mut state, proposer),
            Action::Deliver(request, is_heard) => self.deliver(&mut state, request, is_heard),
            Action::Crash(number) => self.crash(&mut state, number),
        }
        (state != *last_state).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::<Self>::always("one value", |_, state| {
            let mut known = state.chosen();
            known.extend(state.learned.iter().flatten());
            known.len() <= 1
        })];
        if self.rules == Rules::Kept {
            properties.push(Property::sometimes("both learn it", |_, state: &State| {
                state.learned.iter().all(Option::is_some)
            }));
            properties.push(Property::sometimes("the other's value is learned", |_, state: &State| {
                state.learned[0] == Some(1) || state.learned[1] == Some(0)
            }));
            properties.push(Property::sometimes("it is chosen and nobody knows", |_, state: &State| {
                !state.chosen().is_empty() && state.learned.iter().all(Option::is_none)
            }));
        }
        properties
    }
}

fn explore(attempts: [u64; PROPOSERS], comes_twice: bool) {
    let began = Instant::now();
    let checker = Decree { rules: Rules::Kept, attempts, comes_twice }.checker().spawn_bfs().join();
    let (states, depth, took) = (checker.unique_state_count(), checker.max_depth(), began.elapsed());
    println!(
        "attempts {attempts:?}, twice {comes_twice}: {states} states, {depth} steps deep, {:.1} s",
        took.as_secs_f64()
    );
    checker.assert_properties();
}

fn find(rules: Rules) {
    let began = Instant::now();
    let checker = Decree { rules, attempts: [1, 1], comes_twice: false }.checker().spawn_bfs().join();
    println!("{rules:?}: found in {} states, {:.1} s", checker.unique_state_count(), began.elapsed().as_secs_f64());
    let path = checker.discovery("one value").unwrap_or_else(|| panic!("{rules:?} is not missed"));
    path.into_actions().into_iter().for_each(|action| println!("  {action:?}"));
}

#[test]
fn one_value_is_chosen_in_every_order_of_messages() {
    explore([2, 1], true);
    explore([2, 2], false);
}

#[test]
fn acceptors_must_not_forget() {
    find(Rules::PromisesAreForgotten);
    find(Rules::AcceptedValuesAreForgotten);
}

#[test]
fn accepted_values_must_be_taken_over() {
    find(Rules::AcceptedValuesAreIgnored);
}

#[test]
fn a_majority_must_agree() {
    find(Rules::AMinorityIsEnough);
}

#[test]
fn ballots_must_differ() {
    find(Rules::BallotsAreShared);
}
