//! A put or a delete of a batch: its points get their versions first and keep them, however often they are sent; what was
//! not settled is written again while time is left.

use std::sync::Arc;
use std::time::Duration;

use vecino_model::message::Stamped;
use vecino_model::{Outcome, Version};

use super::asking::{Failed, Hedge, Plan, Task, ask};
use super::attempts::Effect;
use super::nodes::Nodes;
use crate::plants::{Plant, Plants};
use crate::time::Time;

/// How often points that were not settled are written again.
const ROUNDS_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// A part of a write: for which points of the batch, by their places in it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask for the versions of these points.
    Stamp(Vec<usize>),
    /// Write these points, with these versions where there are some.
    Write(Vec<usize>, Vec<Version>),
}

/// What answers a [`Step`].
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// The versions that were asked for.
    Stamps(Vec<Stamped>),
    /// What became of each point.
    Outcomes(Vec<Outcome>),
}

/// A batch that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Number of its points.
    pub points: usize,
    /// Numbers for its two kinds of request.
    pub kinds: [u16; 2],
    /// When its caller stops waiting.
    pub until: Time,
    /// Whether what may have been written is written again. Then its points get their versions first.
    pub repeats_unknown: bool,
    /// When it goes to a second node beside the first.
    pub hedge: Hedge,
    /// A number from 0 to 1 that spreads the pauses of many clients.
    pub chance: f64,
    /// Rules that are broken on purpose.
    pub plants: Plants,
}

/// Writes a batch; gives what became of each point.
///
/// # Errors
/// When no node could be asked, or the request was refused as a whole, so that nothing is known of any point but what
/// the failure says of all.
pub async fn write(task: &Task<Step, Said>, nodes: &Arc<Nodes>, batch: Write) -> Result<Vec<Outcome>, Failed> {
    let mut writing = Writing { task, nodes, batch, stamps: vec![None; batch.points], outcomes: Vec::new() };
    writing.outcomes = vec![None; batch.points];
    let mut round = 0;
    loop {
        let unsettled = writing.unsettled();
        if unsettled.is_empty() {
            break;
        }
        if round > 0 {
            let pause = pause(round, batch.chance);
            if round > ROUNDS_MAX || task.now().time + pause >= batch.until {
                break;
            }
            task.pause(task.now().time + pause).await;
        }
        round += 1;
        if let Err(failed) = writing.round(&unsettled).await {
            if writing.outcomes.iter().all(Option::is_none) {
                return Err(failed);
            }
            break;
        }
    }
    let nothing = || Outcome::Unavailable("it was not sent before its time was up".to_owned());
    Ok(writing.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(nothing)).collect())
}

struct Writing<'w> {
    task: &'w Task<Step, Said>,
    nodes: &'w Arc<Nodes>,
    batch: Write,
    stamps: Vec<Option<Version>>,
    outcomes: Vec<Option<Outcome>>,
}

impl Writing<'_> {
    /// Places of the points that are to be written again, or for the first time: those that surely were not written, and,
    /// where the caller allows it, those that may have been.
    fn unsettled(&self) -> Vec<usize> {
        let is_open = |outcome: &Option<Outcome>| match outcome {
            None | Some(Outcome::Unavailable(_)) => true,
            Some(Outcome::Unknown(_)) => self.batch.repeats_unknown,
            Some(Outcome::Written(_) | Outcome::Refused(_)) => false,
        };
        (0..self.outcomes.len()).filter(|place| is_open(&self.outcomes[*place])).collect()
    }

    fn plan(&self, effect: Effect, kind: u16) -> Plan {
        let Write { until, hedge, chance, .. } = self.batch;
        Plan { effect, kind, until, hedge, chance }
    }

    async fn round(&mut self, places: &[usize]) -> Result<(), Failed> {
        if !self.batch.repeats_unknown {
            return self.write(places.to_vec(), Vec::new(), Effect::SingleWrite).await;
        }
        if self.batch.plants.has(Plant::RetriesAreStampedAnew) {
            return self.write(places.to_vec(), Vec::new(), Effect::RepeatableWrite).await;
        }
        let unstamped: Vec<usize> = places.iter().copied().filter(|place| self.stamps[*place].is_none()).collect();
        if !unstamped.is_empty() {
            self.stamp(unstamped).await?;
        }
        let (mut stamped, mut stamps) = (Vec::new(), Vec::new());
        for place in places {
            if let Some(stamp) = self.stamps[*place] {
                stamped.push(*place);
                stamps.push(stamp);
            }
        }
        if stamped.is_empty() {
            return Ok(());
        }
        self.write(stamped, stamps, Effect::RepeatableWrite).await
    }

    /// Has points stamped. What could not be has its outcome; nothing was written of it.
    async fn stamp(&mut self, places: Vec<usize>) -> Result<(), Failed> {
        let plan = self.plan(Effect::Read, self.batch.kinds[0]);
        let answered = ask(self.task, self.nodes, plan, Step::Stamp(places.clone())).await?;
        let Said::Stamps(stamps) = answered.reply else { return Ok(()) };
        for (place, stamp) in places.into_iter().zip(stamps) {
            match stamp {
                Stamped::Version(stamp) => self.stamps[place] = Some(stamp),
                Stamped::Refused(reason) => self.settle(place, Outcome::Refused(reason), false),
                Stamped::Unavailable(reason) => self.settle(place, Outcome::Unavailable(reason), false),
            }
        }
        Ok(())
    }

    async fn write(&mut self, places: Vec<usize>, stamps: Vec<Version>, effect: Effect) -> Result<(), Failed> {
        let plan = self.plan(effect, self.batch.kinds[1]);
        match ask(self.task, self.nodes, plan, Step::Write(places.clone(), stamps)).await {
            Ok(answered) => {
                let Said::Outcomes(outcomes) = answered.reply else { return Ok(()) };
                for (place, outcome) in places.into_iter().zip(outcomes) {
                    self.settle(place, outcome, answered.is_in_doubt);
                }
                Ok(())
            }
            Err(failed) => {
                // Whatever was known before, it may be written by now.
                if failed.retry == vecino_model::error::Retry::Unknown {
                    let is_first = self.outcomes.iter().all(Option::is_none);
                    if !is_first {
                        for place in places {
                            // What a node said of it says more than that one said nothing now.
                            let reason = match &self.outcomes[place] {
                                Some(Outcome::Unavailable(said) | Outcome::Unknown(said)) => said.clone(),
                                _ => failed.error.message.clone(),
                            };
                            self.settle(place, Outcome::Unknown(reason), true);
                        }
                    }
                }
                Err(failed)
            }
        }
    }

    /// Takes a later outcome over. A point that may have been written, and is not written now, stays unknown: the earlier
    /// attempt, or another one under way, may still take effect.
    fn settle(&mut self, place: usize, later: Outcome, is_in_doubt: bool) {
        let was_unknown = matches!(self.outcomes[place], Some(Outcome::Unknown(_)));
        self.outcomes[place] = Some(match later {
            Outcome::Refused(reason) | Outcome::Unavailable(reason) if was_unknown || is_in_doubt => {
                Outcome::Unknown(reason)
            }
            later => later,
        });
    }
}

/// Pause before a round, which grows from round to round.
fn pause(round: u32, chance: f64) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << round.saturating_sub(1).min(8)).mul_f64(1.0 + chance / 2.0)
}
