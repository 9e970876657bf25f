//! The threads that link stored slots into graphs and take buried ones out of them, shared by all collections of a node.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vecino_supervise::caught;

use crate::linking::link_some;
use crate::tails::Tails;

pub use crate::linking::Linkable;

/// Slots that one thread links before it looks at the next collection.
const CHUNK: usize = 64;

/// Time without a wake for a collection after which the threads take out of its graphs the few buried slots
/// that are not worth it beside other work.
const REST: Duration = Duration::from_secs(5);

/// Pause after a panic outside of any collection's work, which is not known to be over.
const PANIC_PAUSE: Duration = Duration::from_millis(100);

/// How much the threads give way to those that answer requests, from 0 to 19.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Has this thread give way to those that answer requests.
pub(crate) fn give_way() {
    // Linux keeps niceness by thread; elsewhere it would slow down the whole process. Refused, it changes nothing.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICENESS);
}

/// A pool of linking threads. Dropping it stops them once they have finished the slots in hand.
pub struct Indexers {
    shared: Arc<Shared>,
    tails: Arc<Tails>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    threads: usize,
    rest: Duration,
}

#[derive(Default)]
struct Queue {
    /// Collections with slots to link. A collection may stand here several times, at most once a thread.
    waiting: VecDeque<Weak<dyn Linkable>>,
    /// Collections that have nothing to link, and when they will have rested; each once.
    resting: Vec<(Instant, Weak<dyn Linkable>)>,
    stopping: bool,
}

/// What a thread is to do next.
enum Job {
    Link(Weak<dyn Linkable>),
    Settle(Weak<dyn Linkable>),
}

impl Indexers {
    /// Starts `threads` threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        Self::start_resting(threads, REST)
    }

    fn start_resting(threads: usize, rest: Duration) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), threads, rest });
        let threads = (0..threads)
            .map(|number| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("indexer-{number}")).spawn(move || {
                    give_way();
                    while caught("an indexer", || shared.run()).is_err() {
                        std::thread::sleep(PANIC_PAUSE);
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, tails: Arc::default(), threads })
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// How much waits for the threads.
    pub fn tails(&self) -> &Arc<Tails> {
        &self.tails
    }

    /// Has the threads link what a collection has stored.
    pub fn wake(&self, collection: &Arc<dyn Linkable>) {
        self.shared.push(Arc::downgrade(collection), self.threads.len());
    }
}

impl Drop for Indexers {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // They catch their panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, collection: Weak<dyn Linkable>, at_most: usize) {
        let mut queue = self.lock();
        if queue.waiting.iter().filter(|waiting| waiting.ptr_eq(&collection)).count() < at_most {
            queue.waiting.push_back(collection);
            drop(queue);
            self.wake.notify_one();
        }
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            match job {
                Job::Link(collection) => {
                    let Some(linkable) = collection.upgrade() else { continue };
                    if let Err(panic) = caught("linking", || self.link(&collection, &*linkable)) {
                        linkable.panicked(&panic);
                        // What else waits is linked, unless the collection has had enough of it.
                        self.push(collection, usize::MAX);
                    }
                }
                Job::Settle(collection) => {
                    let Some(linkable) = collection.upgrade() else { continue };
                    if let Err(panic) = caught("consolidating", || self.settle(&collection, &*linkable)) {
                        linkable.panicked(&panic);
                        self.rest(collection, self.rest);
                    }
                }
            }
        }
    }

    fn link(&self, collection: &Weak<dyn Linkable>, linkable: &dyn Linkable) {
        if linkable.indexes().iter().any(|index| index.unlinked() > 2 * CHUNK) {
            // More than this thread should do alone.
            self.push(Weak::clone(collection), self.threads);
        }
        if link_some(linkable, CHUNK) {
            self.push(Weak::clone(collection), usize::MAX);
        } else if linkable.indexes().iter().any(|index| !index.is_consolidated()) {
            self.rest(Weak::clone(collection), self.rest);
        }
    }

    fn settle(&self, collection: &Weak<dyn Linkable>, linkable: &dyn Linkable) {
        let more = linkable.indexes().into_iter().fold(false, |more, index| more | index.consolidate_idle(CHUNK));
        if more {
            self.rest(Weak::clone(collection), Duration::ZERO);
        } else if linkable.indexes().iter().any(|index| !index.is_consolidated()) {
            // A snapshot is being written.
            self.rest(Weak::clone(collection), self.rest);
        }
    }

    /// Waits for something to do; `None` when the threads are to stop.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.stopping {
                return None;
            }
            if let Some(collection) = queue.waiting.pop_front() {
                return Some(Job::Link(collection));
            }
            let Some(first) = (0..queue.resting.len()).min_by_key(|at| queue.resting[*at].0) else {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = queue.resting[first].0.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Job::Settle(queue.resting.swap_remove(first).1));
            }
            queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets a collection rest for this time from now on.
    fn rest(&self, collection: Weak<dyn Linkable>, rest: Duration) {
        let mut queue = self.lock();
        queue.resting.retain(|(_, other)| !other.ptr_eq(&collection));
        queue.resting.push((Instant::now() + rest, collection));
        drop(queue);
        // One thread has to wait for no longer than that.
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread::ThreadId;
    use std::time::{Duration, Instant};

    use vecino_index::{Index, Metric, Params};
    use vecino_supervise::Panicked;

    use super::*;

    struct One(Index);

    impl Linkable for One {
        fn indexes(&self) -> Vec<&Index> {
            vec![&self.0]
        }
    }

    /// Counts the calls of each thread, and after its first lets none go on before that number of threads came, or far too late.
    struct Crowd(Index, usize, Mutex<HashMap<ThreadId, usize>>);

    impl Linkable for Crowd {
        fn indexes(&self) -> Vec<&Index> {
            let mut calls = self.2.lock().unwrap();
            let count = calls.entry(std::thread::current().id()).or_default();
            *count += 1;
            let is_first = *count == 1;
            drop(calls);
            let begun = Instant::now();
            while !is_first && self.2.lock().unwrap().len() < self.1 && begun.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
            vec![&self.0]
        }
    }

    #[test]
    fn one_call_sets_all_threads_to_a_long_tail() {
        let indexers = Indexers::start(3).unwrap();
        let index = Index::new(Params { flat_live_max: Some(0), ..Params::new(2, Metric::Euclidean) }).unwrap();
        (0..2_000).for_each(|slot| index.store(slot, &[slot as f32, 1.0]).unwrap());
        let crowd = Arc::new(Crowd(index, 3, Mutex::default()));
        let linkable: Arc<dyn Linkable> = Arc::clone(&crowd) as _;
        indexers.wake(&linkable);
        while crowd.0.unlinked() > 0 {
            std::thread::yield_now();
        }
        drop(indexers);
        assert_eq!(crowd.2.lock().unwrap().len(), 3, "threads that linked");
    }

    /// Panics each time that it is asked for its indexes, as often as it is told to.
    struct Faulty(Index, Mutex<(usize, usize)>);

    impl Linkable for Faulty {
        fn indexes(&self) -> Vec<&Index> {
            let mut counts = self.1.lock().unwrap();
            if counts.0 > 0 {
                counts.0 -= 1;
                drop(counts);
                panic!("as asked");
            }
            vec![&self.0]
        }

        fn panicked(&self, panic: &Panicked) {
            assert_eq!(panic.message(), "as asked");
            self.1.lock().unwrap().1 += 1;
        }
    }

    #[test]
    fn a_panic_in_linking_is_told_and_the_threads_go_on() {
        // More panics than threads.
        let indexers = Indexers::start(2).unwrap();
        let index = Index::new(Params { flat_live_max: Some(0), ..Params::new(2, Metric::Euclidean) }).unwrap();
        (0..500).for_each(|slot| index.store(slot, &[slot as f32, 1.0]).unwrap());
        let faulty = Arc::new(Faulty(index, Mutex::new((5, 0))));
        let linkable: Arc<dyn Linkable> = Arc::clone(&faulty) as _;
        indexers.wake(&linkable);
        while faulty.0.unlinked() > 0 {
            std::thread::yield_now();
        }
        drop(indexers);
        assert_eq!(*faulty.1.lock().unwrap(), (0, 5));
    }

    #[test]
    fn what_little_is_buried_leaves_once_there_is_nothing_else_to_do() {
        let indexers = Indexers::start_resting(2, Duration::from_millis(50)).unwrap();
        let one = One(Index::new(Params { flat_live_max: Some(0), ..Params::new(2, Metric::Euclidean) }).unwrap());
        (0..1_000).for_each(|slot| one.0.store(slot, &[slot as f32, 1.0]).unwrap());
        let linkable: Arc<dyn Linkable> = Arc::new(one);
        indexers.wake(&linkable);
        let index = || linkable.indexes()[0];
        while index().unlinked() > 0 {
            std::thread::yield_now();
        }
        (0..50).for_each(|slot| index().mark_deleted(slot));
        assert!(
            !index().consolidate(64) && !index().is_consolidated(),
            "a twentieth is not worth it beside other work"
        );
        indexers.wake(&linkable);
        while !index().is_consolidated() || !indexers.shared.lock().resting.is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn everything_stored_is_linked_and_the_threads_stop() {
        let indexers = Indexers::start(2).unwrap();
        let one =
            Arc::new(One(Index::new(Params { flat_live_max: Some(0), ..Params::new(2, Metric::Euclidean) }).unwrap()));
        let linkable: Arc<dyn Linkable> = Arc::clone(&one) as _;
        for slot in 0..1_000 {
            one.0.store(slot, &[slot as f32, 1.0]).unwrap();
            indexers.wake(&linkable);
        }
        while one.0.unlinked() > 0 {
            std::thread::yield_now();
        }
        drop(indexers);
    }
}
