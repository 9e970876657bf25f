//! Which of the collections that a node keeps are open. One is opened when it is first asked for; beyond a number of
//! open ones, or where there is no memory for another, those that were idle longest are closed again, never one that is
//! in use.
//!
//! ```text
//!              ask                opened
//!   Closed ---------> Opening ------------> Open
//!     ^                  \ cannot be          |  idle longest of too many
//!     |                   -------> Failed     v
//!     +------------------------------------ Closing
//! ```
//!
//! Who asks for a collection that is being opened waits, for a while. What a place holds changes under one lock, held
//! for no longer than that; opening and closing happen outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tracing::{error, info, warn};
use vecino_model::{CollectionId, CollectionSchema, CollectionStats, Serving};
use vecino_supervise::caught;

use vecino_engine::progress::{Progress, percent};
use vecino_engine::{Collection, OpenError};

/// Collections that are open at once, unless the settings say otherwise.
pub const OPEN_MAX_DEFAULT: usize = 256;
/// How long a request waits for a collection that is being opened.
const OPENING_WAIT: Duration = Duration::from_secs(5);
/// A collection makes room in memory for another only when nobody has asked for it for so long: two that are both asked
/// for, and do not fit beside each other, shall not push each other out all the time.
const IDLE_MIN: Duration = Duration::from_secs(30);
/// Collections that are opened at once because somebody asked; more wait.
const OPENINGS_MAX: usize = 4;
/// A collection that a restart would have to replay more of is closed with a snapshot.
const REPLAY_BYTES_MAX: u64 = 1024 * 1024;

/// A collection that this node keeps.
#[derive(Debug)]
pub struct CollectionSpec {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: CollectionId,
    /// Its schema.
    pub schema: CollectionSchema,
}

/// What opens a collection, and what removes the files of one that was dropped while it was being opened.
pub trait Opener: Send + Sync + 'static {
    /// Opens a collection. Blocks.
    fn open(&self, kept: &CollectionSpec, progress: &Progress) -> Result<Collection, OpenError>;
    /// Removes its files. Blocks.
    fn remove(&self, id: CollectionId);
}

/// Why a collection is not to be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotOpen {
    /// This node does not keep it.
    #[error("it is not kept here")]
    Unknown,
    /// It cannot be opened.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
        /// Whether what is missing can only come from other replicas.
        needs_copy: bool,
    },
    /// It is still being opened.
    #[error("it is being opened ({phase}, {percent} %)")]
    Opening {
        /// What opening is busy with.
        phase: &'static str,
        /// How much of that is done.
        percent: u8,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// The collections that a node keeps, open or not.
pub struct OpenCollections {
    opener: Box<dyn Opener>,
    open_max: usize,
    opening_wait: Duration,
    idle_min: Duration,
    runtime: tokio::runtime::Handle,
    openings: Semaphore,
    places: Mutex<Places>,
    /// Told of whenever a place holds something else.
    changed: Notify,
}

#[derive(Default)]
struct Places {
    by_id: HashMap<CollectionId, Place>,
    /// Counts uses: the greater, the later.
    uses: u64,
    is_stopping: bool,
}

struct Place {
    kept: Arc<CollectionSpec>,
    state: State,
    /// The last use, by number and by time.
    used: u64,
    used_at: Instant,
    /// What it held when it was last open.
    last: CollectionStats,
    /// When it was last opened anew because its writer had panicked.
    reopened_at: Option<Instant>,
}

enum State {
    Closed,
    /// By the thread that has the same progress.
    Opening(Arc<Opening>),
    Open(Collection),
    Closing,
    Failed {
        reason: String,
        needs_copy: bool,
    },
}

/// An opening under way.
struct Opening {
    progress: Progress,
    since: Instant,
}

impl OpenCollections {
    /// No collections yet.
    pub fn new(opener: impl Opener, open_max: usize, runtime: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new(Self {
            opener: Box::new(opener),
            open_max: open_max.max(1),
            opening_wait: OPENING_WAIT,
            idle_min: IDLE_MIN,
            runtime,
            openings: Semaphore::new(OPENINGS_MAX),
            places: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Keeps a collection, closed until it is asked for. One that is kept already stays as it is.
    pub fn keep(&self, kept: CollectionSpec) {
        let place = |kept: CollectionSpec| Place {
            kept: Arc::new(kept),
            state: State::Closed,
            used: 0,
            used_at: Instant::now(),
            last: CollectionStats::default(),
            reopened_at: None,
        };
        self.lock().by_id.entry(kept.id).or_insert_with(|| place(kept));
    }

    /// Opens a collection that is kept and closed. Blocks. Gives it, or why it cannot be opened.
    pub fn open(&self, id: CollectionId) -> Result<Collection, NotOpen> {
        match self.begin(id) {
            Some((kept, opening)) => self.open_now(&kept, &opening),
            None => self.look(id).unwrap_or(Err(NotOpen::Unknown)),
        }
    }

    /// The collection, opened if it was not. Waits for that, for a while.
    pub async fn get(self: &Arc<Self>, id: CollectionId) -> Result<Collection, NotOpen> {
        let deadline = tokio::time::Instant::now() + self.opening_wait;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let seen = match self.look(id) {
                Some(Err(waits @ NotOpen::Opening { .. })) => waits,
                Some(found) => return found,
                None => {
                    self.begin_in_background(id);
                    NotOpen::Opening { phase: "waiting for others", percent: 0 }
                }
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(match self.look(id) {
                    Some(Ok(collection)) => return Ok(collection),
                    Some(Err(absent)) => absent,
                    None => seen,
                });
            }
        }
    }

    /// Forgets a collection, and gives it if it was open. One that is being opened is closed when it is, and
    /// its files removed.
    pub fn forget(&self, id: CollectionId) -> Option<Collection> {
        let place = self.lock().by_id.remove(&id);
        self.changed.notify_waiters();
        match place?.state {
            State::Open(collection) => Some(collection),
            State::Closed | State::Opening(_) | State::Closing | State::Failed { .. } => None,
        }
    }

    /// Whether a collection is kept, open or not.
    pub fn keeps(&self, id: CollectionId) -> bool {
        self.lock().by_id.contains_key(&id)
    }

    /// Those that are open.
    pub fn open_ones(&self) -> Vec<Collection> {
        let places = self.lock();
        places.by_id.values().filter_map(Place::open).cloned().collect()
    }

    /// Whether a collection is kept and closed.
    pub fn is_closed(&self, id: CollectionId) -> bool {
        self.lock().by_id.get(&id).is_some_and(|place| matches!(place.state, State::Closed))
    }

    /// Those that are closed.
    pub fn closed_ones(&self) -> Vec<CollectionId> {
        let places = self.lock();
        places.by_id.iter().filter(|(_, place)| matches!(place.state, State::Closed)).map(|(id, _)| *id).collect()
    }

    /// What a collection holds, as far as is known, and how it serves.
    pub fn stats(&self, id: CollectionId) -> Option<CollectionStats> {
        let places = self.lock();
        let Place { state, last, .. } = places.by_id.get(&id)?;
        let last = last.clone();
        let stats = match state {
            State::Closed | State::Closing => CollectionStats { serving: Serving::Closed, ..last },
            State::Opening(opening) => {
                CollectionStats { serving: Serving::Opening, percent: Some(opening.progress.now().1), ..last }
            }
            State::Failed { reason, needs_copy } => CollectionStats {
                serving: if *needs_copy { Serving::NeedsCopy } else { Serving::Failed },
                error: Some(reason.clone()),
                ..CollectionStats::default()
            },
            State::Open(collection) => {
                let collection = collection.clone();
                drop(places);
                collection.stats()
            }
        };
        Some(stats)
    }

    /// Tries again to open what could not be opened: the cause may have been passing. Blocks.
    pub fn retry_failed(&self) {
        let failed: Vec<(Arc<CollectionSpec>, Arc<Opening>)> = {
            let mut places = self.lock();
            let failed = places.by_id.values_mut().filter(|place| matches!(place.state, State::Failed { .. }));
            failed.map(Place::begin).collect()
        };
        for (kept, opening) in failed {
            if self.open_now(&kept, &opening).is_ok() {
                info!(collection = kept.name, id = %kept.id, "a collection that could not be opened is open now");
            }
        }
    }

    /// Closes what was idle longest until no more than the settings allow are open, or the rest are in use. Blocks.
    pub fn make_room(&self) {
        while self.close_one(self.open_max, Duration::ZERO) {}
    }

    /// Closes the collection that was idle longest, if more than `open_max` are open and it was idle for `idle_min`.
    /// Returns whether it did. Blocks.
    fn close_one(&self, open_max: usize, idle_min: Duration) -> bool {
        let Some((kept, collection)) = self.choose_to_close(open_max, idle_min) else { return false };
        if collection.replay_bytes() > REPLAY_BYTES_MAX
            && !collection.is_broken()
            && let Err(reason) = collection.snapshot()
        {
            warn!(collection = kept.name, %reason, "an idle collection is closed without a snapshot; its log has everything");
        }
        self.close_chosen(&kept, collection);
        true
    }

    /// Closes a collection whose place says that it is being closed.
    fn close_chosen(&self, kept: &CollectionSpec, collection: Collection) {
        collection.close();
        let last = CollectionStats { index_bytes: 0, memory_bytes: 0, error: None, ..collection.stats() };
        drop(collection);
        let mut places = self.lock();
        if let Some(place) = places.by_id.get_mut(&kept.id).filter(|place| matches!(place.state, State::Closing)) {
            (place.state, place.last) = (State::Closed, last);
        }
        drop(places);
        self.changed.notify_waiters();
    }

    /// Opens collections anew whose writer has panicked and that no request holds, each no sooner than `pause` after the
    /// last time: its log has everything that was acknowledged. Blocks.
    pub fn reopen_broken(&self, pause: Duration) {
        while let Some((kept, collection)) = self.choose_broken(pause) {
            warn!(collection = kept.name, id = %kept.id, "a collection is opened anew, for its writer has panicked");
            self.close_chosen(&kept, collection);
            // Why it cannot be opened is kept with it.
            let _ = self.open(kept.id);
        }
    }

    fn choose_broken(&self, pause: Duration) -> Option<(Arc<CollectionSpec>, Collection)> {
        let mut places = self.lock();
        if places.is_stopping {
            return None;
        }
        let is_due = |place: &&mut Place| {
            place.open().is_some_and(|collection| collection.is_broken() && collection.is_held_alone())
                && place.reopened_at.is_none_or(|at| at.elapsed() >= pause)
        };
        let place = places.by_id.values_mut().find(is_due)?;
        place.reopened_at = Some(Instant::now());
        place.begin_closing()
    }

    /// Whether one more may be open.
    pub fn has_room(&self) -> bool {
        let places = self.lock();
        !places.is_stopping && places.by_id.values().filter(|place| place.open().is_some()).count() < self.open_max
    }

    /// Says how far those are that take long.
    pub fn tell_progress(&self) {
        let places = self.lock();
        for place in places.by_id.values() {
            let collection = &place.kept.name;
            match &place.state {
                State::Opening(opening) if opening.since.elapsed() >= PROGRESS_AFTER => {
                    let (phase, percent) = opening.progress.now();
                    info!(collection, phase = phase.name(), percent, "opening a collection");
                }
                State::Open(open) => {
                    if let Some((done, total)) = open.warming() {
                        let percent = percent(done as u64, total as u64);
                        info!(
                            collection,
                            phase = "making codes",
                            percent,
                            "a collection is warming; it serves meanwhile"
                        );
                    }
                }
                State::Closed | State::Closing | State::Failed { .. } | State::Opening(_) => {}
            }
        }
    }

    /// Opens nothing any more, and closes everything: writes that were accepted are finished, later ones refused. Blocks.
    pub fn close(&self) {
        self.lock().is_stopping = true;
        self.changed.notify_waiters();
        self.open_ones().iter().for_each(Collection::close);
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be said of a collection at once; `None` where it is closed and has to be opened.
    fn look(&self, id: CollectionId) -> Option<Result<Collection, NotOpen>> {
        let mut places = self.lock();
        let Places { by_id, uses, is_stopping } = &mut *places;
        let Some(place) = by_id.get_mut(&id) else { return Some(Err(NotOpen::Unknown)) };
        match &place.state {
            State::Open(collection) => {
                *uses += 1;
                (place.used, place.used_at) = (*uses, Instant::now());
                Some(Ok(collection.clone()))
            }
            State::Failed { reason, needs_copy } => {
                Some(Err(NotOpen::Failed { reason: reason.clone(), needs_copy: *needs_copy }))
            }
            State::Opening(_) | State::Closed | State::Closing if *is_stopping => Some(Err(NotOpen::Stopping)),
            State::Opening(opening) => {
                let (phase, percent) = opening.progress.now();
                Some(Err(NotOpen::Opening { phase: phase.name(), percent }))
            }
            State::Closing => Some(Err(NotOpen::Opening { phase: "closing first", percent: 0 })),
            State::Closed => None,
        }
    }

    /// Claims the opening of a closed collection.
    fn begin(&self, id: CollectionId) -> Option<(Arc<CollectionSpec>, Arc<Opening>)> {
        let mut places = self.lock();
        if places.is_stopping {
            return None;
        }
        places.by_id.get_mut(&id).filter(|place| matches!(place.state, State::Closed)).map(Place::begin)
    }

    fn begin_in_background(self: &Arc<Self>, id: CollectionId) {
        let Some((kept, opening)) = self.begin(id) else { return };
        let collections = Arc::clone(self);
        self.runtime.spawn(async move {
            let _permit = collections.openings.acquire().await;
            let opened = {
                let collections = Arc::clone(&collections);
                // The outcome is in its place, where waiting requests find it.
                tokio::task::spawn_blocking(move || drop(collections.open_now(&kept, &opening))).await
            };
            if let Err(error) = opened {
                error!(%id, %error, "opening a collection ended early");
            }
        });
    }

    /// Opens a collection whose opening was claimed.
    fn open_now(&self, kept: &CollectionSpec, opening: &Arc<Opening>) -> Result<Collection, NotOpen> {
        // Whoever waits is answered in any case.
        let claim = Claim { collections: self, id: kept.id, opening };
        let opened = loop {
            let opened = caught("opening a collection", || self.opener.open(kept, &opening.progress));
            match opened.unwrap_or_else(|panic| Err(panic.into())) {
                Err(OpenError::Memory(_)) if self.close_one(0, self.idle_min) => {}
                opened => break opened,
            }
        };
        let mut places = self.lock();
        let Places { by_id, uses, is_stopping } = &mut *places;
        let is_stopping = *is_stopping;
        let place = by_id.get_mut(&kept.id).filter(|place| place.is_opened_by(opening));
        let found = match (opened, place) {
            (Ok(collection), Some(place)) if !is_stopping => {
                *uses += 1;
                (place.state, place.used) = (State::Open(collection.clone()), *uses);
                place.used_at = Instant::now();
                Ok(collection)
            }
            (Err(reason), Some(place)) => {
                error!(collection = kept.name, id = %kept.id, %reason, "a collection could not be opened; its files are left as they are");
                let (reason, needs_copy) = (reason.to_string(), reason.needs_copy());
                place.state = State::Failed { reason: reason.clone(), needs_copy };
                Err(NotOpen::Failed { reason, needs_copy })
            }
            (opened, place) => {
                let is_dropped = place.is_none();
                if let Some(place) = place {
                    place.state = State::Closed;
                }
                drop(places);
                // Its log is closed before anything is removed.
                drop(opened.inspect(Collection::close));
                if is_dropped {
                    self.opener.remove(kept.id);
                }
                drop(claim);
                return Err(if is_dropped { NotOpen::Unknown } else { NotOpen::Stopping });
            }
        };
        drop(places);
        drop(claim);
        if found.is_ok() {
            self.make_room();
        }
        found
    }

    /// The open collection that was idle longest, where more than `open_max` are open and it was idle for `idle_min`. It
    /// takes no requests from then on.
    fn choose_to_close(&self, open_max: usize, idle_min: Duration) -> Option<(Arc<CollectionSpec>, Collection)> {
        let mut places = self.lock();
        let open = places.by_id.values().filter(|place| place.open().is_some()).count();
        if open <= open_max || places.is_stopping {
            return None;
        }
        let idle = places.by_id.values_mut().filter(|place| place.open().is_some_and(Collection::is_idle));
        let place = idle.min_by_key(|place| place.used).filter(|place| place.used_at.elapsed() >= idle_min)?;
        place.begin_closing()
    }
}

impl Place {
    fn open(&self) -> Option<&Collection> {
        match &self.state {
            State::Open(collection) => Some(collection),
            State::Closed | State::Opening(_) | State::Closing | State::Failed { .. } => None,
        }
    }

    /// An open collection takes no requests from now on.
    fn begin_closing(&mut self) -> Option<(Arc<CollectionSpec>, Collection)> {
        match std::mem::replace(&mut self.state, State::Closing) {
            State::Open(collection) => Some((Arc::clone(&self.kept), collection)),
            state => {
                self.state = state;
                None
            }
        }
    }

    fn begin(&mut self) -> (Arc<CollectionSpec>, Arc<Opening>) {
        let opening = Arc::new(Opening { progress: Progress::default(), since: Instant::now() });
        self.state = State::Opening(Arc::clone(&opening));
        (Arc::clone(&self.kept), opening)
    }

    fn is_opened_by(&self, by: &Arc<Opening>) -> bool {
        matches!(&self.state, State::Opening(opening) if Arc::ptr_eq(opening, by))
    }
}

/// Puts a collection back whose opening ended without an outcome, and tells waiting requests, however it ended.
struct Claim<'a> {
    collections: &'a OpenCollections,
    id: CollectionId,
    opening: &'a Arc<Opening>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut places = self.collections.lock();
        if let Some(place) = places.by_id.get_mut(&self.id).filter(|place| place.is_opened_by(self.opening)) {
            let reason = "opening it ended early; the node's log says why".to_owned();
            place.state = State::Failed { reason, needs_copy: false };
        }
        drop(places);
        self.collections.changed.notify_waiters();
    }
}

/// What is opened sooner is not worth a line.
const PROGRESS_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
