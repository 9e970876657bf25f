//! What becomes of a panic in a thread or task that lives long.
//!
//! A panic ends the thread or task that it happens in, and where nobody looks at the end of that, the work is left undone
//! in silence. So everything that lives long in a node runs under one of these:
//!
//! - [`caught`] and [`caught_async`] for a piece of work: the panic becomes an error that the caller handles;
//! - [`kept_running`] for a task that is to run for ever: it is started again after a pause.
//!
//! All of them log what panicked. [`count_panics`] has every panic of the process counted, and logged with its place, also
//! one in a thread of a library; [`panics`] is what `status` shows of a node.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::pin;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::error;

/// Pause before a task is started again; it doubles with each panic in a row, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A task that ran for this long before it panicked is started again after the shortest pause.
const RAN_WELL: Duration = Duration::from_secs(60);
/// Characters of a panic's message that are kept.
const MESSAGE_CHARS_MAX: usize = 300;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// A piece of work panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    what: String,
    message: String,
}

impl Panicked {
    /// What the panic said.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} panicked: {}", self.what, self.message)
    }
}

impl std::error::Error for Panicked {}

/// Has every panic of this process counted and logged with its place, before what was done about panics until now is done.
pub fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            let thread = std::thread::current();
            let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            error!(thread = thread.name().unwrap_or("unnamed"), place, reason = text(panic.payload()), "a panic");
            before(panic);
        }));
    });
}

/// Number of panics in this process since [`count_panics`].
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Does a piece of work. A panic in it is logged and becomes an error.
///
/// What the work has changed stays as it was when it panicked; the caller knows whether that can be gone on with.
pub fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| told(what, &*panic))
}

/// [`caught`] for a future.
pub async fn caught_async<T>(what: &str, work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    poll_fn(|task| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(task)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panic) => Poll::Ready(Err(told(what, &*panic))),
        }
    })
    .await
}

/// Runs what `start` gives, and starts it again after a pause each time that it panics. Ends when it ends by itself.
pub async fn kept_running<Work: Future<Output = ()>>(what: &str, mut start: impl FnMut() -> Work) {
    let mut panics_in_a_row = 0;
    loop {
        let started = Instant::now();
        // What `start` does itself is part of the work.
        if caught_async(what, async { start().await }).await.is_ok() {
            return;
        }
        panics_in_a_row = if started.elapsed() < RAN_WELL { panics_in_a_row + 1 } else { 1 };
        let pause = pause_after(panics_in_a_row);
        error!(what, ?pause, "it is started again");
        sleep(pause).await;
    }
}

fn pause_after(panics_in_a_row: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << panics_in_a_row.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

fn told(what: &str, panic: &(dyn Any + Send)) -> Panicked {
    let message: String = text(panic).chars().take(MESSAGE_CHARS_MAX).collect();
    error!(what, message, "it panicked");
    Panicked { what: what.to_owned(), message }
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("it does not say why")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_says_what_panicked_and_why() {
        assert_eq!(caught("adding", || 1 + 1), Ok(2));
        let error = caught("adding", || -> u32 { panic!("{} is too many", 3) }).unwrap_err();
        assert_eq!(error.to_string(), "adding panicked: 3 is too many");
        let error = caught("adding", || -> u32 { panic!("plain") }).unwrap_err();
        assert_eq!(error.message(), "plain");
        let error = caught("adding", || -> u32 { std::panic::panic_any(7) }).unwrap_err();
        assert_eq!(error.message(), "it does not say why");
        let long = "x".repeat(10_000);
        assert_eq!(caught("adding", || panic!("{long}")).unwrap_err().message().len(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn every_panic_is_counted_also_where_nobody_catches_it() {
        count_panics();
        count_panics();
        let before = panics();
        let thread = std::thread::spawn(|| panic!("in a thread of its own"));
        assert!(thread.join().is_err());
        assert!(caught("counting", || panic!("in a piece of work")).is_err());
        // Other tests panic beside this one.
        assert!(panics() >= before + 2, "{} panics", panics() - before);
    }

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_until_it_ends_by_itself() {
        let starts = Cell::new(0);
        let begun = Instant::now();
        let work = || {
            starts.set(starts.get() + 1);
            let number = starts.get();
            assert!(number != 1, "before its first await");
            async move {
                tokio::task::yield_now().await;
                assert!(number != 2, "after its first await");
            }
        };
        kept_running("the work", work).await;
        assert_eq!(starts.get(), 3);
        assert!(begun.elapsed() >= pause_after(1) + pause_after(2), "{:?}", begun.elapsed());
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u128> = (1..=4).map(|panics| pause_after(panics).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }
}
