//! The machines of the mesh, as the model runs them: of one point, and hashed by all that is in them.

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
pub enum Machine {
    /// Not begun, or done.
    #[default]
    Idle,
    Write(Write),
    Records(Read<Record>),
    /// A read that does not write back.
    Versions(Read<Version>),
}

impl Machine {
    pub fn write(replicas: Replicas, level: Level) -> (Self, Vec<write::Command>) {
        let (write, commands) = Write::new(replicas, level);
        (Self::Write(write), commands)
    }

    pub fn records(replicas: Replicas) -> (Self, Vec<read::Command>) {
        let (read, commands) = Read::<Record>::new(replicas, Level::Quorum);
        (Self::Records(read), commands)
    }

    pub fn versions(replicas: Replicas) -> (Self, Vec<read::Command>) {
        let (read, commands) = Read::versions(replicas, Level::Quorum);
        (Self::Versions(read), commands)
    }

    pub fn on_version(&mut self, node: NodeId, version: Option<Version>) -> Vec<write::Command> {
        match self {
            Self::Write(write) => write.on_versions(node, Ok(vec![version])),
            Self::Idle | Self::Records(_) | Self::Versions(_) => Vec::new(),
        }
    }

    pub fn on_stamped(&mut self, stamp: Version) -> Vec<write::Command> {
        match self {
            Self::Write(write) => write.on_stamped(vec![(POINT, stamp)]),
            Self::Idle | Self::Records(_) | Self::Versions(_) => Vec::new(),
        }
    }

    pub fn on_written(&mut self, send: write::SendNumber, version: Version) -> Vec<write::Command> {
        match self {
            Self::Write(write) => write.on_written(send, Ok(vec![Outcome::Written(version)])),
            Self::Idle | Self::Records(_) | Self::Versions(_) => Vec::new(),
        }
    }

    pub fn on_read(&mut self, node: NodeId, version: Option<Version>) -> Vec<read::Command> {
        match self {
            Self::Records(read) => {
                let record = version.map(|version| Record { id: PointId::Number(1), version, value: None });
                read.on_read(node, &[POINT], Ok(vec![record]))
            }
            Self::Versions(read) => read.on_read(node, &[POINT], Ok(vec![version])),
            Self::Idle | Self::Write(_) => Vec::new(),
        }
    }

    pub fn on_written_back(&mut self, node: NodeId, version: Version) -> Vec<read::Command> {
        match self {
            Self::Records(read) => read.on_written_back(node, &[POINT], Ok(vec![Outcome::Written(version)])),
            Self::Idle | Self::Write(_) | Self::Versions(_) => Vec::new(),
        }
    }

    pub fn hedge(&mut self) -> Vec<read::Command> {
        match self {
            Self::Records(read) => read.hedge(),
            Self::Versions(read) => read.hedge(),
            Self::Idle | Self::Write(_) => Vec::new(),
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

impl Running {
    pub fn new(machine: Machine) -> Self {
        let mut digest = Digest(DefaultHasher::new());
        write!(digest, "{machine:?}").expect("hashing does not fail");
        Self { machine: Arc::new(machine), digest: digest.0.finish() }
    }

    pub fn is_idle(&self) -> bool {
        matches!(*self.machine, Machine::Idle)
    }

    /// Changes the machine, for whoever has this one.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = (*self.machine).clone();
        let told = change(&mut machine);
        *self = Self::new(machine);
        told
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
