//! Rules that can be broken on purpose, each by a switch, to show that what holds them to be needed finds it out.
//!
//! Nothing but the simulation and tests switches one on. What a switch does is said where the rule is.

use std::fmt;

macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One rule that is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Plant {
            $($(#[$doc])* $name,)*
        }

        impl Plant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

plants! {
    /// A read answers with the newest version that it saw without making it safe at a majority.
    ReadsDoNotWriteBack = "reads-do-not-write-back",
    /// A write goes by its coordinator's clock alone.
    WritesDoNotAsk = "writes-do-not-ask",
    /// A client that sends a put again has it stamped anew (hole H2).
    RetriesAreStampedAnew = "retries-are-stamped-anew",
    /// A replica acknowledges what it has not flushed.
    AcknowledgedBeforeTheFlush = "acknowledged-before-the-flush",
    /// A search ends with `k` confirmed hits, whatever was cut off behind them (hole H3).
    NoSearchHorizon = "no-search-horizon",
    /// A hit that was overwritten meanwhile is dropped (hole F3).
    OverwrittenHitsAreDropped = "overwritten-hits-are-dropped",
    /// The number of a node's start is not part of its stamps (hole H11).
    EqualStampsAfterARestart = "equal-stamps-after-a-restart",
    /// Nodes refuse versions that are ahead of their clocks, and take over those that are less so (hole H4).
    ClocksDecide = "clocks-decide",
    /// What a replica missed is forgotten (hole H8).
    MissedWritesAreForgotten = "missed-writes-are-forgotten",
    /// A hint counts as an acknowledgement.
    HintsCount = "hints-count",
    /// One replica of a majority is enough for a write.
    WritesCountOne = "writes-count-one",
    /// A drop is acknowledged before any other node has taken it (hole H5).
    DropsAreAcknowledgedEarly = "drops-are-acknowledged-early",
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no rule of that name to break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no plant {0:?}")]
pub struct UnknownPlant(String);

impl std::str::FromStr for Plant {
    type Err = UnknownPlant;

    fn from_str(name: &str) -> Result<Self, UnknownPlant> {
        let found = Self::ALL.iter().copied().find(|plant| plant.name() == name);
        found.ok_or_else(|| UnknownPlant(name.to_owned()))
    }
}

/// The rules that are broken; none, but in a test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plants(u32);

impl Plants {
    /// This rule alone.
    pub fn only(plant: Plant) -> Self {
        Self(1 << plant as u32)
    }

    /// These and this one.
    pub fn with(self, plant: Plant) -> Self {
        Self(self.0 | 1 << plant as u32)
    }

    /// Whether a rule is broken.
    pub fn has(self, plant: Plant) -> bool {
        self.0 >> plant as u32 & 1 == 1
    }
}
