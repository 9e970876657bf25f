//! How many searches run at once on this node.
//!
//! As many as keep the processors busy; but while a collection has a long tail of points that wait to be linked, and that
//! every search scans, no more than leave half of the processors to those that link. Linking threads give way to every
//! other thread, so without this they got nothing at all, and a busy collection never became fast.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use vecino_engine::tails::Tails;

/// Searches at a time for each processor; more wait.
const SEARCHES_PER_PROCESSOR: usize = 2;
/// Longest rest after a search.
const REST_MAX: Duration = Duration::from_secs(1);

/// What searches may take of the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    /// Searches at a time.
    searches: usize,
    /// Whether a search is followed by a rest that is as long as it was.
    rests: bool,
}

impl Share {
    /// While a tail is long, half of the processors, rounded down; of one processor, half of its time.
    fn of(processors: usize, is_tail_long: bool) -> Self {
        match (is_tail_long, processors) {
            (false, _) => Self { searches: SEARCHES_PER_PROCESSOR * processors.max(1), rests: false },
            (true, 0 | 1) => Self { searches: 1, rests: true },
            (true, _) => Self { searches: processors / 2, rests: false },
        }
    }
}

/// Gives out permission to search.
pub struct Searches {
    /// Divisible by the number of searches at a time, whichever that is: each takes its part.
    units: Arc<Semaphore>,
    processors: usize,
    tails: Arc<Tails>,
}

/// Permission for one search. To be dropped where it ends, within the runtime.
pub struct SearchPermit {
    units: Option<OwnedSemaphorePermit>,
    rests: bool,
    since: Instant,
}

impl Searches {
    /// Permits for this number of processors, by the lengths of these tails.
    pub fn new(processors: usize, tails: Arc<Tails>) -> Self {
        let units = Self::units(processors);
        Self { units: Arc::new(Semaphore::new(units as usize)), processors, tails }
    }

    fn units(processors: usize) -> u32 {
        (Share::of(processors, false).searches * Share::of(processors, true).searches) as u32
    }

    /// Waits for permission to search, in the order in which it was asked for.
    pub async fn permit(&self) -> SearchPermit {
        let Share { searches, rests } = Share::of(self.processors, self.tails.any_long());
        let units = Self::units(self.processors) / searches as u32;
        let permit = Arc::clone(&self.units).acquire_many_owned(units).await;
        let units = Some(permit.expect("the semaphore is never closed"));
        SearchPermit { units, rests, since: Instant::now() }
    }
}

impl Drop for SearchPermit {
    fn drop(&mut self) {
        let units = self.units.take();
        if self.rests {
            let rest = self.since.elapsed().min(REST_MAX);
            tokio::spawn(async move {
                tokio::time::sleep(rest).await;
                drop(units);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use vecino_engine::tails::TAIL_LONG;

    #[test]
    fn while_a_tail_is_long_searches_take_half_of_the_processors_at_most() {
        let share = |searches, rests| Share { searches, rests };
        for (processors, usual, beside_a_tail) in [
            (1, share(2, false), share(1, true)),
            (2, share(4, false), share(1, false)),
            (3, share(6, false), share(1, false)),
            (4, share(8, false), share(2, false)),
            (7, share(14, false), share(3, false)),
            (16, share(32, false), share(8, false)),
            (128, share(256, false), share(64, false)),
        ] {
            assert_eq!(Share::of(processors, false), usual, "{processors} processors");
            assert_eq!(Share::of(processors, true), beside_a_tail, "{processors} processors beside a long tail");
        }
    }

    /// Most searches at a time of more than there may be.
    async fn most_at_once(searches: &Arc<Searches>) -> usize {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (searches, running, most) = (Arc::clone(searches), Arc::clone(&running), Arc::clone(&most));
                tokio::spawn(async move {
                    let permit = searches.permit().await;
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Every other task that may run does.
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        most.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn fewer_searches_run_at_once_for_as_long_as_a_tail_is_long() {
        for (processors, usual, beside_a_tail) in [(1, 2, 1), (2, 4, 1), (3, 6, 1), (7, 14, 3), (16, 32, 8)] {
            let tails = Arc::<Tails>::default();
            let (tail, searches) = (tails.tail(), Arc::new(Searches::new(processors, Arc::clone(&tails))));
            assert_eq!(most_at_once(&searches).await, usual, "{processors} processors");
            tail.note(|| TAIL_LONG + 1);
            assert_eq!(most_at_once(&searches).await, beside_a_tail, "{processors} processors beside a long tail");
            tail.note(|| 0);
            assert_eq!(most_at_once(&searches).await, usual, "{processors} processors again");
        }
    }

    #[tokio::test]
    async fn on_one_processor_a_search_beside_a_long_tail_is_followed_by_a_rest() {
        let tails = Arc::<Tails>::default();
        let (tail, searches) = (tails.tail(), Searches::new(1, Arc::clone(&tails)));
        tail.note(|| TAIL_LONG + 1);
        let permit = searches.permit().await;
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(30)).await;
        let searched = begun.elapsed();
        drop(permit);
        drop(searches.permit().await);
        assert!(begun.elapsed() >= 2 * searched, "{:?} after {searched:?} of searching", begun.elapsed());
    }
}
