//! What has panicked in a collection while it was open: how often, what is done about it, and what its owner is told.
//!
//! A panic in linking costs the slot in hand, which searches go on to find by a scan; where it happens again and again,
//! linking is given up until the collection is opened anew. A panic in the writer may have left the tables half changed, so
//! nothing is written any more until the collection is opened anew from its log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vecino_supervise::Panicked;

/// Panics in linking after which it is given up.
const LINKING_PANICS_MAX: u32 = 8;

/// The panics of one collection.
#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    linking: u32,
    linking_last: String,
    /// Since the last snapshot that was taken.
    snapshot: Option<String>,
    writer: Option<String>,
}

impl Faults {
    /// Linking, consolidation or the making of codes panicked.
    pub fn linking_panicked(&self, panic: &Panicked) {
        let mut state = self.lock();
        state.linking += 1;
        state.linking_last = panic.message().to_owned();
    }

    /// Whether nothing is linked any more.
    pub fn is_linking_given_up(&self) -> bool {
        self.lock().linking >= LINKING_PANICS_MAX
    }

    /// A snapshot panicked, or one was taken.
    pub fn snapshot_ended(&self, panic: Option<&Panicked>) {
        self.lock().snapshot = panic.map(|panic| panic.message().to_owned());
    }

    /// The writer panicked, and is gone.
    pub fn writer_panicked(&self, panic: &Panicked) {
        self.lock().writer = Some(panic.message().to_owned());
    }

    /// Why the writer is gone.
    pub fn writer(&self) -> Option<String> {
        self.lock().writer.clone()
    }

    /// What is to be known of them.
    pub fn told(&self) -> Option<String> {
        let State { linking, linking_last, snapshot, writer } = &*self.lock();
        let mut told = Vec::new();
        if let Some(reason) = writer {
            told.push(format!(
                "its writer panicked ({reason}): puts and deletes are refused until it is opened anew, which this node does by itself"
            ));
        }
        match *linking {
            0 => {}
            LINKING_PANICS_MAX.. => told.push(format!(
                "linking panicked {linking} times (at last: {linking_last}) and is given up: new points are searched one by one; restart the node to try again"
            )),
            _ => told.push(format!("linking panicked {linking} times (at last: {linking_last}) and goes on")),
        }
        if let Some(reason) = snapshot {
            told.push(format!("its last snapshot panicked ({reason}): the log has everything, and it is tried again"));
        }
        (!told.is_empty()).then(|| told.join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panicked_is_told_with_what_is_done_about_it() {
        let panic = vecino_supervise::caught("a test", || panic!("as asked")).unwrap_err();
        let faults = Faults::default();
        assert_eq!(faults.told(), None);
        for _ in 1..LINKING_PANICS_MAX {
            faults.linking_panicked(&panic);
        }
        assert!(!faults.is_linking_given_up());
        assert_eq!(faults.told().unwrap(), "linking panicked 7 times (at last: as asked) and goes on");
        faults.linking_panicked(&panic);
        assert!(faults.is_linking_given_up());
        assert!(faults.told().unwrap().contains("8 times (at last: as asked) and is given up"));

        let faults = Faults::default();
        faults.snapshot_ended(Some(&panic));
        assert!(faults.told().unwrap().contains("snapshot panicked (as asked)"));
        faults.snapshot_ended(None);
        assert_eq!((faults.told(), faults.writer()), (None, None));
        faults.writer_panicked(&panic);
        assert_eq!(faults.writer().unwrap(), "as asked");
        assert!(faults.told().unwrap().starts_with("its writer panicked (as asked)"));
    }
}
