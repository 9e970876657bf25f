//! Each rule by itself, and runs by chance in which no two values are ever chosen.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use vecino_model::NodeId;

use super::*;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn nodes(count: u8) -> BTreeSet<NodeId> {
    (0..count).map(node).collect()
}

fn ballot(round: u64, of: u8) -> Ballot {
    Ballot { round, node: node(of) }
}

fn refused(above: Ballot) -> Failure {
    Failure::Refused(Refused { above })
}

#[test]
fn ballots_rise_above_all_that_were_seen_and_differ_between_nodes() {
    assert_eq!(Ballot::above(None, node(3)), ballot(1, 3));
    assert_eq!(Ballot::above(Some(ballot(7, 9)), node(3)), ballot(8, 3));
    assert!(ballot(1, 9) < ballot(2, 0) && ballot(2, 0) < ballot(2, 1));
}

#[test]
fn an_acceptor_keeps_its_promise_and_tells_what_it_accepted() {
    let mut acceptor = Acceptor::default();
    assert_eq!(acceptor.prepare(ballot(2, 1)), Ok(Promise { accepted: None }));
    assert_eq!(acceptor.prepare(ballot(1, 9)), Err(Refused { above: ballot(2, 1) }));
    assert_eq!(acceptor.accept(ballot(1, 9), 'a'), Err(Refused { above: ballot(2, 1) }));
    assert_eq!(acceptor.accept(ballot(2, 1), 'b'), Ok(()));
    let before = acceptor.clone();
    assert_eq!(acceptor.accept(ballot(2, 1), 'b'), Ok(()), "asked again it answers the same");
    assert_eq!(acceptor.prepare(ballot(2, 1)), Ok(Promise { accepted: Some((ballot(2, 1), 'b')) }));
    assert_eq!(acceptor, before);
    // It may accept what it promised nothing for, and has then promised as much.
    assert_eq!(acceptor.accept(ballot(3, 0), 'c'), Ok(()));
    assert_eq!(acceptor.prepare(ballot(2, 5)), Err(Refused { above: ballot(3, 0) }));
}

#[test]
fn a_majority_chooses_what_was_wanted_where_nothing_was_accepted() {
    let (mut attempt, first) = Proposer::new(nodes(3), ballot(1, 0), 'a');
    assert_eq!(first, Command::Prepare { to: nodes(3) });
    let nothing = || Ok(Promise { accepted: None });
    assert_eq!(attempt.on_promise(node(0), nothing()), None);
    assert_eq!(attempt.on_promise(node(0), nothing()), None, "one acceptor counts once");
    assert_eq!(attempt.on_promise(node(7), nothing()), None, "it is no acceptor");
    assert_eq!(attempt.on_accepted(node(1), Ok(())), None, "nobody was asked to accept");
    assert_eq!(attempt.on_promise(node(2), nothing()), Some(Command::Accept { to: nodes(3), value: 'a' }));
    assert_eq!(attempt.on_promise(node(1), nothing()), None, "it comes late");
    assert_eq!(attempt.on_accepted(node(1), Ok(())), None);
    assert_eq!(attempt.on_accepted(node(2), Err(Failure::Silent)), None);
    assert_eq!(attempt.on_accepted(node(2), Ok(())), None, "it has failed to answer");
    assert_eq!(attempt.on_accepted(node(0), Ok(())), Some(Command::End(End::Chosen('a'))));
    assert_eq!(attempt.on_accepted(node(0), Err(refused(ballot(9, 9)))), None, "it has ended");
}

#[test]
fn the_value_of_the_highest_ballot_is_taken_over() {
    let (mut attempt, _) = Proposer::new(nodes(5), ballot(5, 0), 'a');
    let accepted = |round, value| Ok(Promise { accepted: Some((ballot(round, 1), value)) });
    assert_eq!(attempt.on_promise(node(0), accepted(3, 'c')), None);
    assert_eq!(attempt.on_promise(node(1), accepted(2, 'b')), None);
    let third = attempt.on_promise(node(2), Ok(Promise { accepted: None }));
    assert_eq!(third, Some(Command::Accept { to: nodes(5), value: 'c' }));
}

#[test]
fn an_attempt_without_a_majority_says_what_was_in_the_way() {
    let (mut attempt, _) = Proposer::new(nodes(3), ballot(1, 0), 'a');
    assert_eq!(attempt.on_promise(node(0), Err(refused(ballot(4, 2)))), None);
    let end = attempt.on_promise(node(1), Err(refused(ballot(3, 2))));
    assert_eq!(end, Some(Command::End(End::Overtaken { above: ballot(4, 2) })));
    let (mut attempt, _) = Proposer::new(nodes(3), ballot(1, 0), 'a');
    assert_eq!(attempt.on_promise(node(0), Err(Failure::Silent)), None);
    assert_eq!(attempt.on_promise(node(1), Err(Failure::Silent)), Some(Command::End(End::NoMajority)));
    // In the second phase those that were silent in the first are asked, too.
    let (mut attempt, _) = Proposer::new(nodes(3), ballot(1, 0), 'a');
    let _ = attempt.on_promise(node(0), Err(Failure::Silent));
    let _ = attempt.on_promise(node(1), Ok(Promise { accepted: None }));
    assert!(attempt.on_promise(node(2), Ok(Promise { accepted: None })).is_some());
    assert_eq!(attempt.on_accepted(node(0), Ok(())), None);
    assert_eq!(attempt.on_accepted(node(1), Err(refused(ballot(2, 1)))), None);
    assert_eq!(attempt.on_accepted(node(2), Ok(())), Some(Command::End(End::Chosen('a'))));
}

// -------------------------------------------------------------------------------------------------------- by chance

enum Message {
    Prepare(usize, NodeId, Ballot),
    Accept(usize, NodeId, Ballot, u8),
    Promised(usize, NodeId, Ballot, Result<Promise<u8>, Failure>),
    Accepted(usize, NodeId, Ballot, Result<(), Failure>),
}

/// Acceptors that lose nothing in a crash but what is under way, and proposers that try again until they know.
struct Run {
    random: Rng,
    acceptors: BTreeMap<NodeId, Acceptor<u8>>,
    proposers: Vec<(Proposer<u8>, Option<u8>)>,
    seen: Vec<Ballot>,
    messages: Vec<Message>,
    is_calm: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let count = if random.bool() { 3 } else { 5 };
        let acceptors = nodes(count).into_iter().map(|id| (id, Acceptor::default())).collect();
        let mut run =
            Self { random, acceptors, proposers: Vec::new(), seen: Vec::new(), messages: Vec::new(), is_calm: false };
        for number in 0..3 {
            let (attempt, first) = Proposer::new(nodes(count), Ballot::above(None, node(number)), number);
            run.proposers.push((attempt, None));
            run.seen.push(ballot(1, number));
            run.carry_out(usize::from(number), first);
        }
        run
    }

    fn carry_out(&mut self, of: usize, command: Command<u8>) {
        let ballot = self.proposers[of].0.ballot();
        match command {
            Command::Prepare { to } => self.messages.extend(to.into_iter().map(|to| Message::Prepare(of, to, ballot))),
            Command::Accept { to, value } => {
                self.messages.extend(to.into_iter().map(|to| Message::Accept(of, to, ballot, value)));
            }
            Command::End(End::Chosen(value)) => self.proposers[of].1 = Some(value),
            Command::End(End::Overtaken { above }) => {
                self.seen[of] = self.seen[of].max(above);
                self.try_again(of);
            }
            Command::End(End::NoMajority) => self.try_again(of),
        }
    }

    fn try_again(&mut self, of: usize) {
        let ballot = Ballot::above(Some(self.seen[of]), node(of as u8));
        self.seen[of] = ballot;
        let (attempt, first) = Proposer::new(self.acceptors.keys().copied().collect(), ballot, of as u8);
        self.proposers[of] = (attempt, None);
        self.carry_out(of, first);
    }

    fn step(&mut self) {
        let number = self.random.usize(..self.messages.len());
        if !self.is_calm && self.random.u8(..10) == 0 {
            self.messages.swap_remove(number);
            return;
        }
        let is_doubled = !self.is_calm && self.random.u8(..10) == 0;
        let message = match &self.messages[number] {
            Message::Prepare(of, to, ballot) => Message::Prepare(*of, *to, *ballot),
            Message::Accept(of, to, ballot, value) => Message::Accept(*of, *to, *ballot, *value),
            Message::Promised(of, from, ballot, answer) => Message::Promised(*of, *from, *ballot, answer.clone()),
            Message::Accepted(of, from, ballot, answer) => Message::Accepted(*of, *from, *ballot, *answer),
        };
        if !is_doubled {
            self.messages.swap_remove(number);
        }
        match message {
            Message::Prepare(of, to, ballot) => {
                let answer = self.acceptors.get_mut(&to).unwrap().prepare(ballot).map_err(Failure::Refused);
                self.messages.push(Message::Promised(of, to, ballot, answer));
            }
            Message::Accept(of, to, ballot, value) => {
                let answer = self.acceptors.get_mut(&to).unwrap().accept(ballot, value).map_err(Failure::Refused);
                self.messages.push(Message::Accepted(of, to, ballot, answer));
            }
            // An answer to an attempt that was given up is for nobody.
            Message::Promised(of, from, ballot, answer) if self.proposers[of].0.ballot() == ballot => {
                let next = self.proposers[of].0.on_promise(from, answer);
                next.into_iter().for_each(|command| self.carry_out(of, command));
            }
            Message::Accepted(of, from, ballot, answer) if self.proposers[of].0.ballot() == ballot => {
                let next = self.proposers[of].0.on_accepted(from, answer);
                next.into_iter().for_each(|command| self.carry_out(of, command));
            }
            Message::Promised(..) | Message::Accepted(..) => {}
        }
    }

    fn chosen(&self) -> BTreeSet<u8> {
        self.proposers.iter().filter_map(|(_, chosen)| *chosen).collect()
    }
}

#[test]
fn one_value_is_chosen_and_all_learn_that_one() {
    let mut values = BTreeSet::new();
    for seed in 0..10_000 {
        let mut run = Run::new(seed);
        for _ in 0..run.random.usize(..200) {
            if run.messages.is_empty() || run.random.u8(..30) == 0 {
                let of = run.random.usize(..3);
                run.try_again(of);
            }
            run.step();
            assert!(run.chosen().len() <= 1, "seed {seed}: {:?} were chosen", run.chosen());
        }
        // One after the other, and with nothing lost, each learns what was chosen.
        run.is_calm = true;
        for of in 0..3 {
            run.messages.clear();
            while run.proposers[of].1.is_none() {
                if run.messages.is_empty() {
                    run.try_again(of);
                }
                run.step();
            }
        }
        let chosen = run.chosen();
        assert_eq!(chosen.len(), 1, "seed {seed}: {chosen:?} were chosen");
        values.extend(chosen);
    }
    assert_eq!(values, BTreeSet::from([0, 1, 2]), "each proposer wins now and then");
}
