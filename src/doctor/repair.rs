//! Carrying repairs out.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use vecino_storage::Disk;

use super::examine::examine;
use super::report::{Repair, Report};

/// What was done, and how things are afterwards.
#[derive(Debug)]
pub struct Repaired {
    /// What was done, in order.
    pub done: Vec<Repair>,
    /// What could not be done, and why.
    pub failed: Vec<(Repair, io::Error)>,
    /// What was found after it.
    pub report: Report,
}

/// Examinations at most. The first shows what can be done at once; with a manifest gone, the pages that only it named
/// are found to be garbage; then nothing is left to do.
const ROUNDS_MAX: usize = 4;

/// Does what a report says may be done, and examines again until nothing more may be.
pub fn repair(disk: &Arc<dyn Disk>, report: Report) -> io::Result<Repaired> {
    let mut repaired = Repaired { done: Vec::new(), failed: Vec::new(), report };
    for _ in 0..ROUNDS_MAX {
        let known_to_fail = |repair: &&Repair| !repaired.failed.iter().any(|(failed, _)| failed == *repair);
        let due: BTreeSet<Repair> = repaired.report.repairs().filter(known_to_fail).cloned().collect();
        if due.is_empty() {
            break;
        }
        let mut touched = BTreeSet::new();
        for repair in due {
            match repair.carry_out(&**disk) {
                Ok(()) => {
                    touched.insert(repair.directory().to_owned());
                    repaired.done.push(repair);
                }
                Err(error) => repaired.failed.push((repair, error)),
            }
        }
        // Durable before the next round, which may remove what was needed for what is gone now.
        touched.iter().try_for_each(|directory| disk.sync_dir(directory))?;
        repaired.report = examine(disk)?;
    }
    Ok(repaired)
}

impl Repair {
    fn carry_out(&self, disk: &dyn Disk) -> io::Result<()> {
        match self {
            Self::Remove(file) => disk.remove(file),
            Self::Cut { file, at } => {
                let file = disk.open_write(file)?;
                file.truncate(*at)?;
                file.sync()
            }
        }
    }

    fn directory(&self) -> &str {
        let (Self::Remove(file) | Self::Cut { file, .. }) = self;
        file.rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}
