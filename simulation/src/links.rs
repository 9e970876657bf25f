//! The links between nodes, and between clients and nodes: what gets through, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use vecino_mesh::time::Time;

use crate::plan::Plan;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A node.
    Node(usize),
    /// A client.
    Client(usize),
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives after this time.
    Arrives(Duration),
    /// It never does.
    Lost,
}

/// A connection ends when nothing was heard for this long; what is lost until then is sent again.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// All links.
pub(crate) struct Links {
    delay: Duration,
    loss: u32,
    slow: (Time, u32),
    /// Until when each direction is cut.
    cut: BTreeMap<(End, End), Time>,
}

impl Links {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self { delay: plan.delay, loss: plan.loss, slow: (Time::default(), 1), cut: BTreeMap::new() }
    }

    /// Nothing gets through in this direction until then.
    pub(crate) fn cut(&mut self, from: End, to: End, until: Time) {
        let known = self.cut.entry((from, to)).or_default();
        *known = (*known).max(until);
    }

    /// Messages take this many times as long until then.
    pub(crate) fn slow(&mut self, factor: u32, until: Time) {
        self.slow = (until, factor);
    }

    /// Everything is mended.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
        self.slow = (Time::default(), 1);
        self.loss = 0;
    }

    /// Whether something gets through in this direction now.
    pub(crate) fn is_open(&self, from: End, to: End, now: Time) -> bool {
        self.cut.get(&(from, to)).is_none_or(|until| *until <= now)
    }

    /// What becomes of a message that is sent now.
    pub(crate) fn send(&self, from: End, to: End, now: Time, random: &mut fastrand::Rng) -> Fate {
        let factor = if now < self.slow.0 { self.slow.1 } else { 1 };
        // Some messages are much later than others, so that they overtake each other.
        let spread = 0.3 + random.f64() + if random.u8(..16) == 0 { random.f64() * 20.0 } else { 0.0 };
        let mut delay = self.delay.mul_f64(spread * f64::from(factor));
        if random.u32(..1_000) < self.loss {
            // What is lost is sent again, until the connection is given up.
            delay += Duration::from_millis(random.u64(20..1_500));
        }
        let opens = self.cut.get(&(from, to)).copied().filter(|until| *until > now);
        match opens {
            None => Fate::Arrives(delay),
            Some(until) if until.since(now) < IDLE_TIMEOUT && random.bool() => {
                Fate::Arrives(until.since(now) + delay + Duration::from_millis(random.u64(..300)))
            }
            Some(_) => Fate::Lost,
        }
    }
}
