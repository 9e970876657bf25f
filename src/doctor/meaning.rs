//! What the findings in one collection mean for its data, and what may be done about them. Pure.
//!
//! A collection is all there if some snapshot can be used and the log can be read from its lsn to its end; where the log
//! still begins with the first record, no snapshot is needed. Whatever else is damaged is then superfluous: removing it
//! loses nothing. Where there is no such *source*, nothing that says anything about the data is touched.

use vecino_storage::inspect::{Finding, FindingKind, LogInspection};

use super::{Diagnosis, Loss, Repair};

/// Snapshots that are kept on disk; older ones are left from a crash.
const SNAPSHOTS_KEPT: usize = 2;

/// What is known of one collection.
pub(super) struct Facts<'a> {
    /// Where it lies.
    pub directory: &'a str,
    pub log: &'a LogInspection,
    /// Newest first.
    pub snapshots: &'a [SnapshotFacts],
    /// What was found among the snapshots.
    pub findings: &'a [Finding],
    /// Whether snapshots and records were decoded, for which the schema must be known.
    pub is_decoded: bool,
}

/// A snapshot whose manifest verifies.
pub(super) struct SnapshotFacts {
    pub path: String,
    pub lsn: u64,
    pub is_whole: bool,
    /// Why its pages, each whole, are no snapshot of this collection.
    pub refusal: Option<String>,
}

impl SnapshotFacts {
    pub fn is_usable(&self) -> bool {
        self.is_whole && self.refusal.is_none()
    }
}

impl Facts<'_> {
    /// Everything that is to be said.
    pub fn diagnoses(&self) -> Vec<Diagnosis> {
        let findings = self.log.findings.iter().chain(self.findings);
        let mut diagnoses: Vec<Diagnosis> = findings.map(|finding| self.diagnose(finding)).collect();
        diagnoses.extend(self.snapshots.iter().filter_map(|snapshot| self.diagnose_contents(snapshot)));
        diagnoses.extend(self.diagnose_reach(&diagnoses));
        let is_newer = self.log.findings.iter().chain(self.findings).any(|found| found.kind == FindingKind::Newer);
        if is_newer {
            // Another program knows what all this means.
            diagnoses.iter_mut().for_each(|diagnosis| diagnosis.repairs.clear());
        }
        diagnoses
    }

    /// Lsn from which the log completes a usable snapshot, or 1 where it needs none; `None` where there is neither.
    pub fn source(&self) -> Option<u64> {
        if self.log.next_lsn < self.newest_lsn() {
            return None;
        }
        let usable = self.snapshots.iter().filter(|snapshot| snapshot.is_usable()).map(|snapshot| snapshot.lsn);
        usable.chain([1]).find(|lsn| self.log.reaches_from(*lsn))
    }

    /// How far the log must have been when the snapshots were taken.
    fn newest_lsn(&self) -> u64 {
        self.snapshots.iter().map(|snapshot| snapshot.lsn).max().unwrap_or(1)
    }

    fn diagnose(&self, finding: &Finding) -> Diagnosis {
        let Finding { file, offset, kind, reason } = finding;
        let (loss, meaning, repairs) = match kind {
            FindingKind::Temporary => {
                (Loss::Nothing, "nothing is lost: it never counted".to_owned(), vec![Repair::Remove(file.clone())])
            }
            FindingKind::TornTail { bytes } => self.torn_tail(file, *offset, *bytes),
            FindingKind::Log { lost } => self.lost_records(lost.start, lost.end),
            FindingKind::Manifest => self.bad_snapshots(std::slice::from_ref(file)),
            FindingKind::Page { manifests } => self.bad_snapshots(manifests),
            FindingKind::UnreferencedPage { bytes } => (
                Loss::Nothing,
                format!("nothing is lost: its {bytes} bytes are garbage"),
                vec![Repair::Remove(file.clone())],
            ),
            FindingKind::SurplusManifest => {
                (Loss::Nothing, "nothing is lost: the next start removes it".to_owned(), Vec::new())
            }
            FindingKind::Newer => {
                (Loss::Unknown, "a newer program wrote it and can say what it is".to_owned(), Vec::new())
            }
            FindingKind::Unreadable => {
                (Loss::Unknown, "what it holds is not known before it can be read".to_owned(), Vec::new())
            }
        };
        Diagnosis { file: file.clone(), offset: *offset, problem: reason.clone(), loss, meaning, repairs }
    }

    fn torn_tail(&self, file: &str, at: u64, bytes: u64) -> (Loss, String, Vec<Repair>) {
        if self.log.next_lsn < self.newest_lsn() {
            let meaning = format!(
                "the snapshot of lsn {} was taken when these {bytes} bytes were whole: only replicas have what they held",
                self.newest_lsn()
            );
            return (Loss::OnlyReplicas, meaning, Vec::new());
        }
        let meaning = format!(
            "nothing that was flushed is lost: the {bytes} bytes from there on are a write that never finished"
        );
        let cut = Repair::Cut { file: file.to_owned(), at };
        // Recovery refuses a log that is damaged elsewhere before it cuts anything, and so do we.
        (Loss::Nothing, meaning, if self.log.is_refused() { Vec::new() } else { vec![cut] })
    }

    fn lost_records(&self, start: u64, end: u64) -> (Loss, String, Vec<Repair>) {
        let holds = |snapshot: &&SnapshotFacts| snapshot.is_usable() && snapshot.lsn >= end;
        if let Some(snapshot) = self.snapshots.iter().find(holds) {
            let meaning = format!("recoverable: the snapshot of lsn {} holds the records before it", snapshot.lsn);
            return (Loss::Recoverable, meaning, Vec::new());
        }
        let which = match end {
            _ if end <= start => format!("what follows lsn {start} may not be the continuation of what is before it"),
            u64::MAX => format!("the records from lsn {start} on cannot be read"),
            _ if end == start + 1 => format!("record {start} cannot be read"),
            _ => format!("{} records, lsn {start} to {}, cannot be read", end - start, end - 1),
        };
        (Loss::OnlyReplicas, format!("{which}, and no usable snapshot holds them: only replicas have them"), Vec::new())
    }

    /// What it means that these snapshots cannot be used, all for one reason.
    fn bad_snapshots(&self, manifests: &[String]) -> (Loss, String, Vec<Repair>) {
        let Some(lsn) = self.source() else {
            let meaning = "no snapshot that the log completes can be used: only replicas have all of it".to_owned();
            return (Loss::OnlyReplicas, meaning, Vec::new());
        };
        let meaning = match lsn {
            1 => "recoverable: the log has every record".to_owned(),
            _ => format!("recoverable: the snapshot of lsn {lsn} and the log behind it hold everything"),
        };
        let repairs = manifests.iter().cloned().map(Repair::Remove).collect();
        // Only a source that was read to the last record is good enough to remove another for.
        (Loss::Recoverable, meaning, if self.is_decoded { repairs } else { Vec::new() })
    }

    /// Whole pages that do not make a snapshot of this collection. Somebody wrote them so: they stay.
    fn diagnose_contents(&self, snapshot: &SnapshotFacts) -> Option<Diagnosis> {
        let problem = snapshot.refusal.as_ref()?;
        let (loss, meaning, _) = self.bad_snapshots(&[]);
        let problem = format!("every page is whole, but the snapshot cannot be used: {problem}");
        Some(Diagnosis { file: snapshot.path.clone(), offset: 0, problem, loss, meaning, repairs: Vec::new() })
    }

    /// Log and snapshots, each whole, that do not meet.
    fn diagnose_reach(&self, known: &[Diagnosis]) -> Option<Diagnosis> {
        let LogInspection { first_lsn, next_lsn, .. } = self.log;
        let newest = self.newest_lsn();
        let (problem, loss, meaning) = if *next_lsn < newest && !self.log.is_refused() {
            let problem = format!("the log ends before lsn {next_lsn}, but a snapshot was taken at lsn {newest}");
            let meaning = format!(
                "the snapshot, where it can be used, has what came before lsn {newest}; only replicas have what came after"
            );
            (problem, Loss::OnlyReplicas, meaning)
        } else if self.source().is_none() && known.iter().all(|diagnosis| diagnosis.loss == Loss::Nothing) {
            let problem = format!("the log begins at lsn {first_lsn}, and no snapshot holds the records before it");
            (problem, Loss::OnlyReplicas, "only replicas have them".to_owned())
        } else {
            let kept = self.snapshots.iter().take(SNAPSHOTS_KEPT);
            let cut_off = kept.filter(|snapshot| snapshot.is_usable() && snapshot.lsn < *first_lsn).last()?;
            let problem = format!("the log begins at lsn {first_lsn}, behind the snapshot of lsn {}", cut_off.lsn);
            let (loss, meaning) = match self.source() {
                Some(lsn) => (
                    Loss::Recoverable,
                    format!("the snapshot of lsn {lsn} has everything, but none can stand in for it"),
                ),
                None => (Loss::OnlyReplicas, "only replicas have the records between".to_owned()),
            };
            (problem, loss, meaning)
        };
        let file = crate::collection::persist::log_dir(self.directory);
        Some(Diagnosis { file, offset: 0, problem, loss, meaning, repairs: Vec::new() })
    }
}
