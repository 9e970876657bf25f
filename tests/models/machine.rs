//! The machines of the mesh, as the model runs them: of one point, and hashed by all that is in them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use vecino_mesh::quorum::read::{self, Read};
use vecino_mesh::quorum::write::{self, Write};
use vecino_mesh::quorum::{PointIndex, Replicas};
use vecino_model::{Level, NodeId, Outcome, PointId, Record, Version};

/// The one point of every batch.
const POINT: PointIndex = 0;

#[derive(Clone, Debug, Default)]
enum Machine {
    /// Not begun, or done.
    #[default]
    Idle,
    Write(Write),
    Records(Read<Record>),
    /// A read that does not write back.
    Versions(Read<Version>),
}

/// What a machine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A replica has this version, or the record of it.
    Has(NodeId, Option<Version>),
    /// A replica took what a write sent under this number, or had this newer version.
    Written(write::SendNumber, Version),
    /// A replica took what a read wrote back.
    WrittenBack(NodeId, Version),
    /// Time to ask one more replica.
    Hedge,
}

/// What a machine wants done.
#[derive(Clone, Debug)]
pub enum Commands {
    OfWrite(Vec<write::Command>),
    OfRead(Vec<read::Command>),
}

impl Machine {
    fn on(&mut self, event: Event) -> Commands {
        match (self, event) {
            (Self::Write(write), Event::Has(node, version)) => {
                Commands::OfWrite(write.on_versions(node, Ok(vec![version])))
            }
            (Self::Write(write), Event::Written(send, version)) => {
                Commands::OfWrite(write.on_written(send, Ok(vec![Outcome::Written(version)])))
            }
            (Self::Records(read), Event::Has(node, version)) => {
                let record = version.map(|version| Record { id: PointId::Number(1), version, value: None });
                Commands::OfRead(read.on_read(node, &[POINT], Ok(vec![record])))
            }
            (Self::Records(read), Event::WrittenBack(node, version)) => {
                Commands::OfRead(read.on_written_back(node, &[POINT], Ok(vec![Outcome::Written(version)])))
            }
            (Self::Records(read), Event::Hedge) => Commands::OfRead(read.hedge()),
            (Self::Versions(read), Event::Has(node, version)) => {
                Commands::OfRead(read.on_read(node, &[POINT], Ok(vec![version])))
            }
            (Self::Versions(read), Event::Hedge) => Commands::OfRead(read.hedge()),
            (Self::Idle, _) => Commands::OfWrite(Vec::new()),
            (machine, event) => unreachable!("{event:?} is not for {machine:?}"),
        }
    }
}

/// A machine that states share until one of them changes it.
///
/// Two are taken for the same if all that `Debug` shows of them is, which is every field: records have no hash, as they
/// hold floats.
#[derive(Clone, Debug, Default)]
pub struct Running {
    machine: Arc<Machine>,
    /// Of what `Debug` shows. 0 if idle.
    digest: u64,
}

impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Running {}

impl Hash for Running {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

thread_local! {
    /// What became of machines. They are pure, so each change of each needs to be made only once.
    static CHANGES: RefCell<HashMap<(u64, Event), (Running, Commands)>> = RefCell::default();
}

impl Running {
    /// Asks for the versions that a stamp must be above. As where a node gives stamps, it goes no further.
    pub fn asking(replicas: Replicas) -> (Self, Commands) {
        let (write, commands) = Write::new(replicas, Level::Quorum);
        (Self::new(Machine::Write(write)), Commands::OfWrite(commands))
    }

    /// Writes what has its stamp.
    pub fn stamped(replicas: Replicas, stamp: Version, counts_one: bool) -> (Self, Commands) {
        let (mut write, commands) = Write::stamped(replicas, Level::Quorum, vec![stamp]);
        if counts_one {
            write.count_one();
        }
        (Self::new(Machine::Write(write)), Commands::OfWrite(commands))
    }

    pub fn records(replicas: Replicas) -> (Self, Commands) {
        let (read, commands) = Read::<Record>::new(replicas, Level::Quorum);
        (Self::new(Machine::Records(read)), Commands::OfRead(commands))
    }

    pub fn versions(replicas: Replicas) -> (Self, Commands) {
        let (read, commands) = Read::versions(replicas, Level::Quorum);
        (Self::new(Machine::Versions(read)), Commands::OfRead(commands))
    }

    fn new(machine: Machine) -> Self {
        let mut digest = Digest(DefaultHasher::new());
        write!(digest, "{machine:?}").expect("hashing does not fail");
        Self { machine: Arc::new(machine), digest: digest.0.finish() }
    }

    pub fn is_idle(&self) -> bool {
        matches!(*self.machine, Machine::Idle)
    }

    /// Changes the machine, for whoever has this one.
    pub fn on(&mut self, event: Event) -> Commands {
        CHANGES.with_borrow_mut(|changes| {
            let change = || {
                let mut machine = (*self.machine).clone();
                let commands = machine.on(event);
                (if self.is_idle() { Self::default() } else { Self::new(machine) }, commands)
            };
            let (changed, commands) = changes.entry((self.digest, event)).or_insert_with(change).clone();
            *self = changed;
            commands
        })
    }

    /// The stamp of a write that has one.
    pub fn stamp(&self) -> Option<Version> {
        match &*self.machine {
            Machine::Write(write) => write.stamp_of(POINT),
            Machine::Idle | Machine::Records(_) | Machine::Versions(_) => None,
        }
    }

    /// The newest version that a read has seen.
    pub fn newest(&self) -> Option<Version> {
        match &*self.machine {
            Machine::Records(read) => read.newest(POINT).map(|record| record.version),
            Machine::Versions(read) => read.newest(POINT).copied(),
            Machine::Idle | Machine::Write(_) => None,
        }
    }

    /// What became of a write.
    pub fn finish_write(&mut self) -> Outcome {
        match std::mem::take(self).machine.as_ref() {
            Machine::Write(write) => write.clone().into_outcomes().remove(POINT),
            Machine::Idle | Machine::Records(_) | Machine::Versions(_) => unreachable!("only writes finish as writes"),
        }
    }

    /// What a read saw.
    pub fn finish_read(&mut self) -> Option<Version> {
        let result = match std::mem::take(self).machine.as_ref() {
            Machine::Records(read) => {
                read.clone().into_results().remove(POINT).map(|seen| seen.map(|record| record.version))
            }
            Machine::Versions(read) => read.clone().into_results().remove(POINT),
            Machine::Idle | Machine::Write(_) => unreachable!("only reads finish as reads"),
        };
        result.expect("no replica fails here")
    }
}

struct Digest(DefaultHasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
