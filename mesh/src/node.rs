//! A node: what it does about everything that happens to it.
//!
//! [`Node::handle`] takes an event and the time and gives commands; a driver carries them out and brings what comes of
//! them back as events. A request becomes an operation, which is a [`Machine`](crate::machine) of the code in
//! `operations`; it may go on when it has answered, to see a write to its last replica. Work that no request asked
//! for (delivering hints, following other nodes' catalogs, probing silent nodes) is an operation too.

use std::collections::BTreeMap;
use std::sync::Arc;

use vecino_model::{NodeId, NodeState, View};

use crate::core::Core;
use crate::event::{Command, Event, OpId};
use crate::machine::{CallId, Machine, Steps};
use crate::operations::{self, Arrival, Asked, Task};
use crate::time::{Now, Time};

/// Operations that no request began have numbers from here on.
const OWN_OPERATIONS: OpId = 1 << 63;

/// The operations under way on a node, or on one of several lanes of it that share their [`Core`].
pub struct Node {
    core: Arc<Core>,
    operations: BTreeMap<OpId, Running>,
    /// Calls of operations that have ended: how long they take is still of interest, and what they hold is given back.
    left_over: BTreeMap<(OpId, CallId), Asked>,
    own_operations: OpId,
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
        Self { core, operations: BTreeMap::new(), left_over: BTreeMap::new(), own_operations: OWN_OPERATIONS }
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
                let is_kept = operations::outlives_its_caller(&request);
                let begin = |task| operations::answer(task, caller, request);
                self.begin(now, &mut commands, (op, deadline, is_kept), begin);
            }
            Event::Abandoned { op } => {
                if self.operations.get(&op).is_some_and(|running| !running.is_kept) {
                    self.end(op);
                }
            }
            Event::Answered { op, call, result, request } => {
                if let Some(asked) = self.left_over.remove(&(op, call)) {
                    asked.settle(&self.core, now.time, result.is_ok());
                }
                let Some(running) = self.operations.get_mut(&op) else { return commands };
                let Some(asked) = running.machine.answered(call) else { return commands };
                asked.settle(&self.core, now.time, result.is_ok());
                let arrival = Arrival { result, request };
                self.step(now, op, Some((call, arrival)), &mut commands);
            }
            Event::Woken { op } => {
                if self.operations.get(&op).is_some_and(|running| running.wake_at <= now.time) {
                    self.step(now, op, None, &mut commands);
                }
            }
            Event::Members(view) => self.set_members(view, &mut commands),
        }
        commands
    }

    fn set_members(&mut self, view: Arc<View>, commands: &mut Vec<Command>) {
        let is_down = |node: &&NodeId| view.members.get(*node).is_some_and(|member| member.state == NodeState::Down);
        for (op, running) in &self.operations {
            let given_up = running.machine.under_way(|(call, asked)| asked.node().filter(is_down).map(|_| *call));
            commands.extend(given_up.into_iter().map(|call| Command::GiveUp { op: *op, call }));
        }
        let left_over = self.left_over.iter().filter(|(_, asked)| asked.node().filter(is_down).is_some());
        commands.extend(left_over.map(|((op, call), _)| Command::GiveUp { op: *op, call: *call }));
        self.core.peers().set_view(view);
    }

    /// An operation is over; its calls may not be.
    fn end(&mut self, op: OpId) {
        let Some(running) = self.operations.remove(&op) else { return };
        let under_way = running.machine.into_under_way();
        self.left_over.extend(under_way.into_iter().map(|(call, asked)| ((op, call), asked)));
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
        commands.extend(stepped.commands);
        if stepped.is_done {
            let is_waking = running.wake_at != Time::NEVER;
            self.end(op);
            if is_waking {
                commands.push(Command::Wake { op, at: Time::NEVER });
            }
        } else if stepped.wake_at != running.wake_at {
            running.wake_at = stepped.wake_at;
            commands.push(Command::Wake { op, at: stepped.wake_at });
        }
    }
}
