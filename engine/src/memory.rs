//! How much memory a node may take, and how much of it each collection takes.
//!
//! One [`Budget`] a node. Every collection has an [`Account`] with it, which says what the collection holds, and
//! [`Reservation`]s count what is on its way: requests, batches in a writer's queue, points that are about to be
//! stored. Nothing is allocated here: what is counted is what the parts say of themselves. Puts ask before they are
//! logged and are refused where they do not fit; deletes and reads are counted and never refused.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What a node takes of the memory that there is, unless told otherwise.
pub const LIMIT_DEFAULT: MemoryLimit = MemoryLimit::Percent(70);
/// The least limit that a node accepts: less would not hold the node itself with a request or two.
pub const LIMIT_BYTES_MIN: u64 = 64 << 20;
/// From this share of the limit on puts are delayed.
const DELAY_SHARE: f64 = 0.9;
/// How long a batch of puts is delayed where the limit is all but reached.
const DELAY_MAX: Duration = Duration::from_millis(200);
/// What a collection may take beyond the limit while it is opened, as a share of it: what was accepted before a restart must
/// be there after it, though it may take a little more then.
const OPENING_SHARE: u64 = 16;

// ------------------------------------------------------------------------------------------------- the setting

/// A limit on memory as people write it: a number of bytes, or a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Bytes.
    Bytes(u64),
    /// Percent of what the machine, or the control group of the process, has.
    Percent(u8),
}

/// What is no limit on memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory limit {0:?} is neither bytes nor percent: use for example 512MiB, 8GiB or 70%, and at least {min}",
    min = Bytes(LIMIT_BYTES_MIN)
)]
pub struct NoLimit(String);

impl FromStr for MemoryLimit {
    type Err = NoLimit;

    fn from_str(text: &str) -> Result<Self, NoLimit> {
        let unusable = || NoLimit(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| unusable())?;
        let shift = match unit.trim() {
            "%" => {
                let percent = u8::try_from(number).ok().filter(|percent| (1..=100).contains(percent));
                return percent.map(Self::Percent).ok_or_else(unusable);
            }
            "" | "B" => 0,
            "K" | "KiB" => 10,
            "M" | "MiB" => 20,
            "G" | "GiB" => 30,
            "T" | "TiB" => 40,
            _ => return Err(unusable()),
        };
        let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes >= LIMIT_BYTES_MIN);
        bytes.map(Self::Bytes).ok_or_else(unusable)
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Bytes(u64),
            Text(String),
        }
        let text = match Said::deserialize(deserializer)? {
            Said::Bytes(bytes) => bytes.to_string(),
            Said::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl MemoryLimit {
    /// The limit in bytes. Where it is unknown how much memory there is, a share of it is no limit.
    pub fn bytes(self, there_is: Option<u64>) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                there_is.map_or(u64::MAX, |bytes| (u128::from(bytes) * u128::from(percent) / 100) as u64)
            }
        }
    }
}

/// Bytes for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.into_iter().find(|(_, shift)| self.0 >= 1 << shift) {
            Some((unit, shift)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

// ------------------------------------------------------------------------------------------------- the machine

/// Bytes of memory that this process may use: the least of what its control groups allow and what the machine has.
pub fn available() -> Option<u64> {
    available_by(|path| std::fs::read_to_string(path).ok())
}

/// Bytes of memory that this process takes now; 0 where the system does not say.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "VmRSS:").unwrap_or(0)
}

fn available_by(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| kilobytes(&text, "MemTotal:"));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // A limit of any group above holds as well. Inside a container the path may be that of the machine outside,
        // and the root be the container's own group, so the root is looked at too.
        let folders = std::iter::successors(Some(path.trim_end_matches('/')), |path| Some(path.rsplit_once('/')?.0));
        folders.filter_map(|folder| read(&format!("{root}{folder}/{file}"))?.trim().parse().ok()).collect()
    });
    limits.chain(machine).min()
}

fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

// ------------------------------------------------------------------------------------------------- the accounts

/// What a node may take, and what it takes.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// There is no memory for something. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "collection {collection:?} needs {wanted} more memory, and this node uses {used} of its limit of {limit}: drop what \
     is not needed, raise --memory-limit, or keep the data on more nodes",
    wanted = Bytes(*wanted), used = Bytes(*used), limit = Bytes(*limit)
)]
pub struct OverLimit {
    /// For which collection.
    pub collection: String,
    /// Bytes that were asked for.
    pub wanted: u64,
    /// Bytes that the node uses.
    pub used: u64,
    /// Bytes that it may use.
    pub limit: u64,
}

impl Budget {
    /// A budget of `limit` bytes, of which the node itself takes `own`.
    pub fn new(limit: u64, own: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(own) })
    }

    /// A budget that has room for everything.
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX, 0)
    }

    /// Bytes that may be used.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are used.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// An account for a collection.
    pub fn account(self: &Arc<Self>, collection: &str) -> Account {
        Account { budget: Arc::clone(self), collection: collection.to_owned(), held: AtomicU64::new(0) }
    }

    /// Counts bytes until what is given back is dropped, whether they fit or not.
    pub fn count(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Reservation { budget: Arc::clone(self), bytes }
    }

    /// Counts bytes until what is given back is dropped, if they fit.
    pub fn try_count(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.take(bytes, self.limit).ok().map(|()| Reservation { budget: Arc::clone(self), bytes })
    }

    /// How long puts are to wait before they are taken on.
    pub fn delay(&self) -> Duration {
        delay(self.used(), self.limit)
    }

    /// Takes bytes if no more than `limit` are used then; gives how many are used where they do not fit.
    fn take(&self, bytes: u64, limit: u64) -> Result<(), u64> {
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).map(|_| ())
    }
}

/// None below the soft limit, and growing from there to the limit.
fn delay(used: u64, limit: u64) -> Duration {
    let soft = limit as f64 * DELAY_SHARE;
    let share = (used as f64 - soft) / (limit as f64 - soft).max(1.0);
    DELAY_MAX.mul_f64(share.clamp(0.0, 1.0))
}

/// What one collection takes of the budget; all of it is given back when the account is dropped.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    collection: String,
    held: AtomicU64,
}

/// Bytes that are spoken for until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Account {
    /// The collection whose account it is.
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// The budget that it is an account with.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Bytes that the collection holds.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Adds bytes to a reservation, or makes one, if they fit.
    pub fn reserve(&self, reservation: &mut Option<Reservation>, bytes: u64) -> Result<(), OverLimit> {
        self.budget.take(bytes, self.budget.limit).map_err(|used| self.over(bytes, used))?;
        match reservation {
            Some(reservation) => reservation.bytes += bytes,
            None => *reservation = Some(Reservation { budget: Arc::clone(&self.budget), bytes }),
        }
        Ok(())
    }

    /// The collection was found to hold this number of bytes.
    pub fn hold(&self, bytes: u64) {
        let before = self.held.swap(bytes, Ordering::AcqRel);
        if bytes >= before {
            self.budget.used.fetch_add(bytes - before, Ordering::AcqRel);
        } else {
            self.budget.used.fetch_sub(before - bytes, Ordering::AcqRel);
        }
    }

    /// What it is for holds this number of bytes from now on, if they fit or are fewer than before. One thread at a time.
    pub fn try_hold(&self, bytes: u64) -> Result<(), OverLimit> {
        let more = bytes.saturating_sub(self.held());
        if more == 0 {
            self.hold(bytes);
            return Ok(());
        }
        self.budget.take(more, self.budget.limit).map_err(|used| self.over(more, used))?;
        self.held.store(bytes, Ordering::Release);
        Ok(())
    }

    /// The collection is being opened and will hold this number of bytes, if they fit. One thread at a time.
    pub fn open_with(&self, bytes: u64) -> Result<(), OverLimit> {
        let before = self.held();
        if bytes > before {
            let limit = self.budget.limit.saturating_add(self.budget.limit / OPENING_SHARE);
            self.budget.take(bytes - before, limit).map_err(|used| self.over(bytes - before, used))?;
            self.held.store(bytes, Ordering::Release);
        }
        Ok(())
    }

    fn over(&self, wanted: u64, used: u64) -> OverLimit {
        OverLimit { collection: self.collection.clone(), wanted, used, limit: self.budget.limit }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held(), Ordering::AcqRel);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_in_bytes_or_percent() {
        let said = |text: &str| text.parse::<MemoryLimit>();
        assert_eq!(said("67108864"), Ok(MemoryLimit::Bytes(64 << 20)));
        assert_eq!(said("512MiB"), Ok(MemoryLimit::Bytes(512 << 20)));
        assert_eq!(said("512 M"), Ok(MemoryLimit::Bytes(512 << 20)));
        assert_eq!(said("8G"), Ok(MemoryLimit::Bytes(8 << 30)));
        assert_eq!(said("2TiB"), Ok(MemoryLimit::Bytes(2 << 40)));
        assert_eq!(said("1%"), Ok(MemoryLimit::Percent(1)));
        for text in ["", "%", "0%", "101%", "-1", "1.5G", "10", "63MiB", "64 MB", "20000000000T", "64MiB x"] {
            let error = said(text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{text:?}")) && error.contains("70%") && error.contains("64.0 MiB"),
                "{error}"
            );
        }
        assert_eq!(MemoryLimit::Percent(70).bytes(Some(1000)), 700);
        assert_eq!(MemoryLimit::Percent(70).bytes(None), u64::MAX);
        assert_eq!(MemoryLimit::Bytes(5).bytes(Some(1)), 5);
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        let told =
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (64 << 20, "64.0 MiB"), (3 << 40, "3.0 TiB")];
        for (bytes, text) in told {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_tightest_of_all_control_groups_and_the_machine_counts() {
        let meminfo = ("/proc/meminfo", "MemTotal:        1000 kB\nMemFree: 10 kB\n");
        let find = |files: &[(&str, &str)]| {
            available_by(|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned()))
        };
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[meminfo]), Some(1_024_000));
        let two = ("/proc/self/cgroup", "0::/a/b\n");
        assert_eq!(find(&[meminfo, two, ("/sys/fs/cgroup/a/b/memory.max", "max\n")]), Some(1_024_000));
        assert_eq!(find(&[meminfo, two, ("/sys/fs/cgroup/a/b/memory.max", "5000\n")]), Some(5000));
        assert_eq!(find(&[meminfo, two, ("/sys/fs/cgroup/a/memory.max", "4000\n")]), Some(4000), "of the group above");
        assert_eq!(find(&[meminfo, two, ("/sys/fs/cgroup/memory.max", "3000\n")]), Some(3000), "inside a container");
        let one = ("/proc/self/cgroup", "5:cpu,memory:/x\n4:cpu:/y\n0::/\n");
        let files = [
            meminfo,
            one,
            ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "6000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(find(&files), Some(6000));
        assert!(available().is_none_or(|bytes| bytes > 1 << 20) && resident() < 1 << 40);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_dropped_fits_again() {
        let budget = Budget::new(1000, 100);
        let films = budget.account("films");
        films.hold(500);
        let mut reservation = None;
        films.reserve(&mut reservation, 300).unwrap();
        films.reserve(&mut reservation, 100).unwrap();
        let refused = films.reserve(&mut reservation, 1).unwrap_err();
        assert_eq!(refused, OverLimit { collection: "films".into(), wanted: 1, used: 1000, limit: 1000 });
        let told = refused.to_string();
        assert!(["\"films\"", "1000 bytes", "--memory-limit"].iter().all(|word| told.contains(word)), "{told}");
        // What was reserved is stored: it is held now, and no longer reserved.
        films.hold(900);
        drop(reservation.take());
        assert_eq!((budget.used(), films.held()), (1000, 900));
        films.hold(200);
        assert_eq!(budget.used(), 300);
        let request = budget.count(900);
        assert_eq!(budget.used(), 1200, "what is there already is counted even where it does not fit");
        assert!(budget.try_count(1).is_none());
        drop((request, films));
        drop(budget.try_count(900).unwrap());
        assert_eq!(budget.used(), 100);
    }

    #[test]
    fn a_collection_that_is_opened_again_may_take_a_little_more() {
        let budget = Budget::new(1600, 0);
        let account = budget.account("films");
        account.open_with(1600).unwrap();
        account.open_with(1700).unwrap();
        let refused = account.open_with(1701).unwrap_err();
        assert_eq!((refused.wanted, refused.used, refused.limit), (1, 1700, 1600));
        account.open_with(10).unwrap();
        assert_eq!(account.held(), 1700, "it only grows while it is opened");
        account.reserve(&mut None, 0).unwrap_err();
    }

    #[test]
    fn what_is_held_on_trial_is_counted_where_it_fits() {
        let budget = Budget::new(1000, 0);
        let account = budget.account("hints");
        account.try_hold(600).unwrap();
        account.try_hold(1001).unwrap_err();
        assert_eq!((account.held(), budget.used()), (600, 600));
        account.try_hold(1000).unwrap();
        let _other = budget.count(500);
        account.try_hold(900).unwrap();
        account.try_hold(901).unwrap_err();
        assert_eq!((account.held(), budget.used()), (900, 1400));
    }

    #[test]
    fn puts_are_delayed_ever_more_near_the_limit() {
        let told: Vec<Duration> = [0, 900, 950, 1000, 5000].map(|used| delay(used, 1000)).into();
        assert_eq!(told, [0, 0, 100, 200, 200].map(Duration::from_millis));
        assert_eq!(delay(u64::MAX / 2, u64::MAX), Duration::ZERO);
    }
}
