//! A node: what it does about everything that happens to it.
//!
//! [`Node::handle`] takes an event and the time and gives commands; a driver carries them out and brings what comes of
//! them back as events. A request becomes an operation, which is a [`Machine`](crate::machine) of the code in
//! `operations`; it may go on when it has answered, to see a write to its last replica. Work that no request asked
//! for (delivering hints, following other nodes' catalogs, probing silent nodes) is an operation too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vecino_model::error::{ErrorCode, Retry, RpcError};
use vecino_model::{NodeId, NodeState, View};

use crate::core::Core;
use crate::event::{Caller, Command, Event, OpId};
use crate::machine::{CallId, Machine, Steps};
use crate::message::Request;
use crate::operations::{self, Arrival, Asked, Task};
use crate::time::{Now, Time};
use crate::turns::{Entered, Next, Turns};

/// Operations that no request began have numbers from here on.
const OWN_OPERATIONS: OpId = 1 << 63;

/// The operations under way on a node, or on one of several lanes of it that share their [`Core`].
pub struct Node {
    core: Arc<Core>,
    operations: BTreeMap<OpId, Running>,
    /// Calls of operations that have ended: how long they take is still of interest, and what they hold is given back.
    left_over: BTreeMap<(OpId, CallId), Asked>,
    own_operations: OpId,
    /// The members as this lane was last told: other lanes, which share what is known of them, may have been told before.
    members: Arc<View>,
    /// The large writes of clients.
    turns: Turns<Asks>,
}

/// A request whose operation has not begun.
struct Asks {
    caller: Caller,
    request: Request,
    deadline: Time,
}

struct Running {
    machine: Machine<Command, Arrival, Asked>,
    /// Whether it goes on though nobody waits for its answer.
    is_kept: bool,
    wake_at: Time,
}

impl Node {
    /// A node without operations.
    pub fn new(core: Arc<Core>) -> Self {
        let turns = Turns::new(core.turns);
        let (operations, left_over) = (BTreeMap::new(), BTreeMap::new());
        let members = Arc::default();
        Self { core, operations, left_over, own_operations: OWN_OPERATIONS, members, turns }
    }

    /// What its operations share.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Number of operations under way.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// Decides what to do about an event.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Started => {
                self.begin_own(now, &mut commands, operations::follow_catalogs);
                self.begin_own(now, &mut commands, operations::probe_silent);
                self.begin_own(now, &mut commands, operations::deliver_hints);
            }
            Event::Request { op, caller, request, deadline } => {
                let bytes = operations::bytes_to_write(&request);
                let asks = Asks { caller, request, deadline };
                let entered = if self.turns.is_large(bytes) {
                    self.turns.enter(op, bytes, deadline, now.time, asks)
                } else {
                    Entered::Goes(asks)
                };
                match entered {
                    Entered::Goes(asks) => self.begin_asked(now, &mut commands, op, asks),
                    Entered::Waits => {}
                    Entered::Refused(after) => commands.push(self.overloaded(op, after)),
                }
            }
            Event::Abandoned { op } => {
                if self.operations.get(&op).is_some_and(|running| !running.is_kept) {
                    self.end(now, op, &mut commands);
                }
                self.turns.give_up(op);
            }
            Event::Answered { op, call, result, request } => {
                if let Some(asked) = self.left_over.remove(&(op, call)) {
                    asked.settle(&self.core, now.time, result.is_ok());
                }
                let asked = self.operations.get_mut(&op).and_then(|running| running.machine.answered(call));
                if let Some(asked) = asked {
                    asked.settle(&self.core, now.time, result.is_ok());
                    let arrival = Arrival { result, request };
                    self.step(now, op, Some((call, arrival)), &mut commands);
                }
            }
            Event::Woken { op } => {
                if self.operations.get(&op).is_some_and(|running| running.wake_at <= now.time) {
                    self.step(now, op, None, &mut commands);
                }
            }
            Event::ClockHeard { node, told } => self.core.wall_clocks().hear(node, told, now),
            Event::Members(view) => self.set_members(view, &mut commands),
        }
        self.take_turns(now, &mut commands);
        commands
    }

    /// Begins what has waited for its turn.
    fn take_turns(&mut self, now: Now, commands: &mut Vec<Command>) {
        while let Some(next) = self.turns.next(now.time) {
            match next {
                Next::Goes(op, asks) => self.begin_asked(now, commands, op, asks),
                Next::Refused(op, after) => commands.push(self.overloaded(op, after)),
            }
        }
    }

    /// Nothing was done of a request, for it would have to wait for longer than its caller does.
    fn overloaded(&self, op: OpId, after: Duration) -> Command {
        // Many are refused at once, and are not to come back at once.
        let after = after.mul_f64(1.0 + self.core.chance().f64() / 2.0);
        let retry = Retry::AfterMs(u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
        let message = "the large writes that wait here would not leave time for this one; nothing was done of it";
        Command::Answer { op, result: Err(RpcError::new(ErrorCode::Overloaded, message).with_retry(retry)) }
    }

    fn begin_asked(&mut self, now: Now, commands: &mut Vec<Command>, op: OpId, asks: Asks) {
        let Asks { caller, request, deadline } = asks;
        let is_kept = operations::outlives_its_caller(&request);
        self.begin(now, commands, (op, deadline, is_kept), |task| operations::answer(task, caller, request));
    }

    fn set_members(&mut self, view: Arc<View>, commands: &mut Vec<Command>) {
        let before = std::mem::replace(&mut self.members, Arc::clone(&view));
        let state = |view: &View, node: &NodeId| view.members.get(node).map(|member| member.state);
        // A node that was not up before is asked only while this one cannot tell yet: that goes on.
        let went_down =
            |node: &&NodeId| state(&before, node) == Some(NodeState::Up) && state(&view, node) == Some(NodeState::Down);
        for (op, running) in &self.operations {
            let given_up = running.machine.under_way(|(call, asked)| asked.node().filter(went_down).map(|_| *call));
            commands.extend(given_up.into_iter().map(|call| Command::GiveUp { op: *op, call }));
        }
        let left_over = self.left_over.iter().filter(|(_, asked)| asked.node().filter(went_down).is_some());
        commands.extend(left_over.map(|((op, call), _)| Command::GiveUp { op: *op, call: *call }));
        self.core.peers().set_view(view);
    }

    /// An operation is over; its calls may not be. Searches among them are given up: nobody waits for what they find.
    fn end(&mut self, now: Now, op: OpId, commands: &mut Vec<Command>) {
        let Some(running) = self.operations.remove(&op) else { return };
        for (call, asked) in running.machine.into_under_way() {
            if asked.is_search() {
                asked.is_given_up(&self.core, now.time);
                commands.push(Command::GiveUp { op, call });
            }
            self.left_over.insert((op, call), asked);
        }
    }

    fn begin_own<F>(&mut self, now: Now, commands: &mut Vec<Command>, code: impl FnOnce(Task) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let op = self.own_operations;
        self.own_operations += 1;
        self.begin(now, commands, (op, Time::NEVER, true), code);
    }

    fn begin<F>(
        &mut self,
        now: Now,
        commands: &mut Vec<Command>,
        (op, deadline, is_kept): (OpId, Time, bool),
        code: impl FnOnce(Task) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let steps = Steps::new(now);
        let task = Task::new(Arc::clone(&self.core), steps.clone(), op, deadline);
        let machine = Machine::new(steps, code(task));
        self.operations.insert(op, Running { machine, is_kept, wake_at: Time::NEVER });
        self.step(now, op, None, commands);
    }

    fn step(&mut self, now: Now, op: OpId, arrived: Option<(CallId, Arrival)>, commands: &mut Vec<Command>) {
        let Some(running) = self.operations.get_mut(&op) else { return };
        let stepped = running.machine.step(now, arrived);
        if stepped.is_done || stepped.commands.iter().any(|command| matches!(command, Command::Answer { .. })) {
            self.turns.answered(op, now.time);
        }
        commands.extend(stepped.commands);
        if stepped.is_done {
            let is_waking = running.wake_at != Time::NEVER;
            self.end(now, op, commands);
            if is_waking {
                commands.push(Command::Wake { op, at: Time::NEVER });
            }
        } else if stepped.wake_at != running.wake_at {
            running.wake_at = stepped.wake_at;
            commands.push(Command::Wake { op, at: stepped.wake_at });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use vecino_model::error::{ErrorCode, Retry, RpcError};
    use vecino_model::message::{Delete, Put, Query, ReplicaHits, ReplicaVersions, Search, Stamp};
    use vecino_model::{
        CatalogEntry, CollectionId, CollectionSchema, FieldSchema, Fields, Fsync, Level, LiveCollection, Member,
        MeshId, Metric, Outcome, RawPayload, RawPoint, Record, Vector, Version,
    };

    use super::*;
    use crate::catalog::Catalog;
    use crate::collections::Collections;
    use crate::core::Start;
    use crate::event::Caller;
    use crate::message::{HintBatch, Reply, Request, TakenHints, WaitingHints};
    use crate::plants::Plants;
    use crate::turns::TurnLimits;
    use crate::wall_clocks;

    const COLLECTION: CollectionId = CollectionId([4; 16]);

    fn id(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn now() -> Now {
        Now { time: Time::default() + Duration::from_millis(1), wall_ms: 1_000 }
    }

    /// Node 1, which remembers where nodes 2 and 3 were.
    fn node(collections: Collections) -> Node {
        let start = Start {
            node: id(1),
            mesh: MeshId([1; 16]),
            start: 1,
            remembered: [2, 3].map(|number| (id(number), ([10, 0, 0, number], 1).into())).into(),
            hints: BTreeMap::new(),
            seed: 1,
            turns: TurnLimits::default(),
            plants: Plants::default(),
        };
        Node::new(Arc::new(Core::new(start, Arc::new(collections), Time::default())))
    }

    /// Nodes 1 and 2.
    fn view(other: NodeState) -> Event {
        members(&[(1, NodeState::Up), (2, other)])
    }

    fn members(states: &[(u8, NodeState)]) -> Event {
        let member = |number: u8, state| Member {
            id: id(number),
            address: ([10, 0, 0, number], 1).into(),
            state,
            tokens: vec![u64::from(number)],
            generation: 1,
            name: String::new(),
            software: String::new(),
            points: 0,
            bytes: 0,
            catalog_digest: String::new(),
        };
        let members = states.iter().map(|(number, state)| (id(*number), member(*number, *state))).collect();
        Event::Members(Arc::new(View { members }))
    }

    /// The collection `films` on nodes 1 and 2.
    fn films(replication_factor: u32) -> Collections {
        let field = FieldSchema { dim: 1, metric: Metric::Dot, m: 8, ef_construction: 40, profile: Default::default() };
        let fields = BTreeMap::from([(String::new(), field)]);
        let schema = CollectionSchema { fields, replication_factor, fsync: Fsync::Always };
        let placement = BTreeMap::from([(id(1), vec![1]), (id(2), vec![2])]);
        let live = Some(LiveCollection { schema, placement });
        let entry = CatalogEntry { name: "films".into(), version: version(1), id: COLLECTION, live };
        let (mut catalog, collections) = (Catalog::default(), Collections::new());
        catalog.merge(entry);
        collections.install(catalog);
        collections
    }

    fn version(time: u64) -> Version {
        Version { time, node: id(1), seq: 0 }
    }

    fn is_given_up(commands: &[Command]) -> bool {
        commands.iter().any(|command| matches!(command, Command::GiveUp { .. }))
    }

    #[test]
    fn calls_end_when_their_node_goes_down_and_not_while_it_is_not_known_to_be_up() {
        let mut node = node(Collections::new());
        // The collection is not known here, so the catalog of the peer that asks is fetched.
        let request = ReplicaVersions { collection: COLLECTION, ids: vec![1.into()] }.into();
        let (caller, deadline) = (Caller::Peer(id(2)), Time::NEVER);
        let asked = node.handle(now(), Event::Request { op: 1, caller, request, deadline });
        assert!(matches!(&asked[0], Command::Send { to, .. } if *to == id(2)), "{asked:?}");
        assert!(!is_given_up(&node.handle(now(), view(NodeState::Down))), "it cannot tell yet who is down");
        assert!(!is_given_up(&node.handle(now(), view(NodeState::Up))));
        assert!(is_given_up(&node.handle(now(), view(NodeState::Down))));
    }

    /// Named after what went wrong: the first lane that was told of a node that is down hid it from the others, whose calls
    /// to that node waited for as long as a connection may be silent.
    #[test]
    fn calls_of_every_lane_end_when_their_node_goes_down() {
        let first = node(Collections::new());
        let mut lanes = [Node::new(Arc::clone(first.core())), first];
        for (op, lane) in lanes.iter_mut().enumerate() {
            lane.handle(now(), view(NodeState::Up));
            let request = ReplicaVersions { collection: COLLECTION, ids: vec![1.into()] }.into();
            let (caller, deadline) = (Caller::Peer(id(2)), Time::NEVER);
            lane.handle(now(), Event::Request { op: op as OpId, caller, request, deadline });
        }
        for lane in &mut lanes {
            assert!(is_given_up(&lane.handle(now(), view(NodeState::Down))));
        }
    }

    fn point() -> RawPoint {
        let vectors = Fields::from([(String::new(), Vector(vec![1.0]))]);
        RawPoint { id: 7.into(), vectors, payload: RawPayload::default() }
    }

    #[test]
    fn a_clock_that_is_off_refuses_level_one_and_says_so() {
        const HOUR_MS: i64 = 3_600_000;
        let at = |second: u64, off_ms: i64| Now {
            time: Time::default() + Duration::from_secs(second),
            wall_ms: (1_700_000_000_000 + 1_000 * second).saturating_add_signed(off_ms),
        };
        let (collection, ids) = ("films".to_owned(), vec![7.into()]);
        let requests = |level, stamps: Vec<Version>| -> [Request; 2] {
            let (collection, ids) = (collection.clone(), ids.clone());
            let put = Put { collection: collection.clone(), points: vec![point()], level, stamps: stamps.clone() };
            [put.into(), Delete { collection, ids, level, stamps }.into()]
        };
        let stamp = |level| -> Request { Stamp { collection: collection.clone(), ids: ids.clone(), level }.into() };
        // What node 1 answers at once, when its clock is off by so much.
        let mut op = 0;
        let mut refusal = |node: &mut Node, now: Now, request: Request| {
            op += 1;
            let event = Event::Request { op, caller: Caller::Client, request, deadline: Time::NEVER };
            node.handle(now, event).into_iter().find_map(|command| match command {
                Command::Answer { result, .. } => result.err(),
                _ => None,
            })
        };
        for off_ms in [HOUR_MS, -HOUR_MS, 501] {
            let mut node = node(films(2));
            node.handle(at(0, off_ms), members(&[(1, NodeState::Up), (2, NodeState::Up), (3, NodeState::Up)]));
            assert_eq!(refusal(&mut node, at(1, off_ms), stamp(Level::One)), None, "nobody is heard yet");
            for (second, other) in [(1, 2), (1, 3), (2, 2), (2, 3)] {
                let told = wall_clocks::told(at(second, 0).wall_ms);
                node.handle(at(second, off_ms), Event::ClockHeard { node: id(other), told });
            }
            let now = at(3, off_ms);
            let standing = node.core().clock_standing(now);
            assert_eq!((standing.ahead_ms, standing.heard, standing.is_off), (off_ms, 2, true));
            for request in requests(Level::One, Vec::new()).into_iter().chain([stamp(Level::One)]) {
                let error = refusal(&mut node, now, request).unwrap();
                assert_eq!((error.code, error.retry), (ErrorCode::Unavailable, Retry::Safe));
                let way = if off_ms < 0 { "behind" } else { "ahead of" };
                let told = format!("{} ms {way} the median", off_ms.abs());
                assert!(error.message.contains(&told) && error.message.contains("at most 500 ms"), "{error}");
            }
            // Where clocks do not decide, or another's did, they do not matter.
            let given = vec![Version { time: 2, node: id(2), seq: 0 }];
            let stamped = requests(Level::One, given).into_iter();
            for request in stamped.chain(requests(Level::Quorum, Vec::new())).chain([stamp(Level::Quorum)]) {
                assert_eq!(refusal(&mut node, now, request), None);
            }
            assert_eq!(refusal(&mut node, at(3, 0), stamp(Level::One)), None, "the clock was set right");
            // Without node 3 nobody can tell which of two clocks is wrong.
            node.handle(now, members(&[(1, NodeState::Up), (2, NodeState::Up), (3, NodeState::Down)]));
            assert_eq!(refusal(&mut node, now, stamp(Level::One)), None);
        }
    }

    #[test]
    fn a_replica_that_does_not_know_a_new_collection_yet_gets_its_writes_later() {
        let mut node = node(films(2));
        node.handle(now(), view(NodeState::Up));
        let stamps = vec![version(2)];
        let request = Put { collection: "films".into(), points: vec![point()], level: Level::One, stamps }.into();
        let asked =
            node.handle(now(), Event::Request { op: 1, caller: Caller::Client, request, deadline: Time::NEVER });
        let mut sent = None;
        let mut own = None;
        for command in asked {
            match command {
                Command::Send { call, request, .. } => sent = Some((call, request)),
                Command::Engine { call, .. } => own = Some(call),
                _ => {}
            }
        }
        let result = Ok(Reply::Outcomes(vec![Outcome::Written(version(2))]));
        let answered = node.handle(now(), Event::Answered { op: 1, call: own.unwrap(), result, request: None });
        assert!(
            answered.iter().any(|command| matches!(command, Command::Answer { result: Ok(_), .. })),
            "{answered:?}"
        );
        let (call, request): (CallId, Request) = sent.unwrap();
        let result = Err(RpcError::new(ErrorCode::NotFound, "node 2 keeps no such collection"));
        let kept = node.handle(now(), Event::Answered { op: 1, call, result, request: Some(request) });
        let [Command::Engine { call, request: Request::KeepHints(hints), .. }] = &kept[..] else {
            panic!("the disk is to keep it: {kept:?}");
        };
        assert_eq!((hints.node, hints.records[0].version), (id(2), version(2)));
        let result = Ok(Reply::Hints(WaitingHints { number: 1, waiting: 1, batch: None }));
        node.handle(now(), Event::Answered { op: 1, call: *call, result, request: None });
        assert_eq!(node.core().hints().waiting(), &BTreeMap::from([(id(2), 1)]));
        assert_eq!(node.operations(), 0);
    }

    /// For one hit in `films`.
    fn search() -> Request {
        let search = Search {
            collection: "films".into(),
            field: String::new(),
            query: Query::Vector(Vector(vec![1.0])),
            k: 1,
            ef: None,
            threshold: None,
            level: Level::Quorum,
            with_payload: false,
            with_vectors: false,
            allow_partial: false,
            exact: false,
        };
        search.into()
    }

    #[test]
    fn a_search_that_nobody_waits_for_is_given_up_on_every_node_and_a_write_is_not() {
        let mut node = node(films(2));
        node.handle(now(), view(NodeState::Up));
        let put =
            Put { collection: "films".into(), points: vec![point()], level: Level::Quorum, stamps: vec![version(2)] };
        for (op, request, given_up) in [(1, search(), 2), (2, put.into(), 0)] {
            let caller = Caller::Client;
            let asked = node.handle(now(), Event::Request { op, caller, request, deadline: Time::NEVER });
            let calls = |command: &&Command| matches!(command, Command::Send { .. } | Command::Engine { .. });
            assert_eq!(asked.iter().filter(calls).count(), 2, "{asked:?}");
            let ended = node.handle(now(), Event::Abandoned { op });
            let gives_up = |command: &&Command| matches!(command, Command::GiveUp { op: of, .. } if *of == op);
            assert_eq!(ended.iter().filter(gives_up).count(), given_up, "{ended:?}");
        }
    }

    #[test]
    fn a_search_that_a_range_does_not_answer_in_time_names_the_range() {
        let mut node = node(films(1));
        node.handle(now(), view(NodeState::Up));
        let deadline = now().time + Duration::from_secs(1);
        let (caller, request) = (Caller::Client, search());
        let asked = node.handle(now(), Event::Request { op: 1, caller, request, deadline });
        let own = asked.iter().find_map(|command| match command {
            Command::Engine { call, .. } => Some(*call),
            _ => None,
        });
        let result = Ok(Reply::Hits(ReplicaHits { hits: Vec::new(), horizon: None }));
        node.handle(now(), Event::Answered { op: 1, call: own.unwrap(), result, request: None });
        let late = Now { time: deadline, wall_ms: 2_000 };
        let answered = node.handle(late, Event::Woken { op: 1 });
        let error = answered.into_iter().find_map(|command| match command {
            Command::Answer { result: Err(error), .. } => Some(error),
            _ => None,
        });
        let error = error.unwrap();
        assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
        let told = error.to_string();
        // Of two tokens, 1 and 2, node 2 has what lies behind the first one up to its own.
        assert!(told.contains("range 0000000000000002..=0000000000000002"), "{told}");
        assert!(told.contains(&format!("node {} did not answer before the deadline", id(2).short())), "{told}");
    }

    /// Named after what went wrong: what was kept for all other nodes waited for up to ten seconds for the one that took
    /// nothing.
    #[test]
    fn a_node_that_takes_no_hints_does_not_hold_up_the_others() {
        let mut node = node(Collections::new());
        let at = |ms| Now { time: Time::default() + Duration::from_millis(ms), wall_ms: 1_000 };
        let core = Arc::clone(node.core());
        for other in [2, 3] {
            core.hints().set_waiting(id(other), 1, 2);
        }
        // What the disk is asked, and what other nodes are sent.
        let read = |commands: &[Command]| -> Vec<(NodeId, OpId, CallId)> {
            let reads = commands.iter().filter_map(|command| match command {
                Command::Engine { op, call, request: Request::NextHints(next) } => Some((next.node, *op, *call)),
                _ => None,
            });
            reads.collect()
        };
        let hand_over = |node: &mut Node, (_, op, call): (NodeId, OpId, CallId), ms| {
            let records = vec![Record { id: 1.into(), version: Version::ZERO, value: None }];
            let batch = Some(HintBatch { collection: COLLECTION, records, last_lsn: 1 });
            let result = Ok(Reply::Hints(WaitingHints { number: 2, waiting: 2, batch }));
            let sent = node.handle(at(ms), Event::Answered { op, call, result, request: None });
            match &sent[..] {
                [Command::Send { to, op, call, request: Request::ReplicaApply(_), .. }, ..] => (*to, *op, *call),
                _ => panic!("it is sent: {sent:?}"),
            }
        };
        let first = read(&node.handle(at(1), Event::Started));
        assert_eq!(first.iter().map(|(to, ..)| *to).collect::<Vec<_>>(), [id(2), id(3)]);
        let (to, op, call) = hand_over(&mut node, first[0], 2);
        assert_eq!((to, hand_over(&mut node, first[1], 2).0), (id(2), id(3)));
        let result = Ok(Reply::Outcomes(vec![Outcome::Written(Version::ZERO)]));
        let taken = node.handle(at(5), Event::Answered { op, call, result, request: None });
        let [Command::Engine { op, call, request: Request::TakenHints(TakenHints { last_lsn: 1, .. }) }, ..] =
            taken[..]
        else {
            panic!("the disk is told: {taken:?}");
        };
        let result = Ok(Reply::Hints(WaitingHints { number: 3, waiting: 1, batch: None }));
        let second = read(&node.handle(at(6), Event::Answered { op, call, result, request: None }));
        assert_eq!(second.iter().map(|(to, ..)| *to).collect::<Vec<_>>(), [id(2)], "node 3 has not answered");
    }
}
