//! What the findings in one collection mean for its data, and what may be done about them. Pure.
//!
//! A collection is all there if some snapshot can be used and the log can be read from its lsn to its end; where the log
//! still begins with the first record, no snapshot is needed. Whatever else is damaged is then superfluous: removing it
//! loses nothing. Where there is no such *source*, nothing that says anything about the data is touched.

use vecino_storage::inspect::{Finding, FindingKind, LogInspection};

use super::report::{Diagnosis, Loss, Repair};

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
        let meaning = match end {
            _ if end <= start => {
                format!("what follows lsn {start} need not follow what is before it: only replicas know")
            }
            _ if end == start + 1 => {
                format!("record {start} cannot be read, and no usable snapshot holds it: only replicas have it")
            }
            _ => {
                let which = match end {
                    u64::MAX => format!("the records from lsn {start} on"),
                    _ => format!("{} records, lsn {start} to {},", end - start, end - 1),
                };
                format!("{which} cannot be read, and no usable snapshot holds them: only replicas have them")
            }
        };
        (Loss::OnlyReplicas, meaning, Vec::new())
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
            let mut kept = self.snapshots.iter().take(SNAPSHOTS_KEPT);
            let cut_off = kept.rfind(|snapshot| snapshot.is_usable() && snapshot.lsn < *first_lsn)?;
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
        let file = vecino_engine::persist::log_dir(self.directory);
        Some(Diagnosis { file, offset: 0, problem, loss, meaning, repairs: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "collections/x";

    fn log(first_lsn: u64, next_lsn: u64, lost: &[(u64, u64)]) -> LogInspection {
        let finding = |(start, end): &(u64, u64)| found("segment", FindingKind::Log { lost: *start..*end });
        let findings = lost.iter().map(finding).collect();
        LogInspection { segments: 1, frames: 1, records: 1, bytes: 1, first_lsn, next_lsn, findings }
    }

    fn found(file: &str, kind: FindingKind) -> Finding {
        Finding { file: file.to_owned(), offset: 7, kind, reason: "it is bad".to_owned() }
    }

    fn snapshot(lsn: u64, is_whole: bool) -> SnapshotFacts {
        SnapshotFacts { path: format!("manifest {lsn}"), lsn, is_whole, refusal: None }
    }

    /// Source, and loss and number of repairs of each diagnosis.
    fn judged(
        log: &LogInspection,
        snapshots: &[SnapshotFacts],
        findings: &[Finding],
    ) -> (Option<u64>, Vec<(Loss, usize)>) {
        let facts = Facts { directory: DIRECTORY, log, snapshots, findings, is_decoded: true };
        let diagnoses = facts.diagnoses().into_iter().map(|diagnosis| (diagnosis.loss, diagnosis.repairs.len()));
        (facts.source(), diagnoses.collect())
    }

    #[test]
    fn lost_records_matter_only_where_no_usable_snapshot_is_behind_them() {
        let both = [snapshot(20, true), snapshot(10, true)];
        assert_eq!(judged(&log(5, 30, &[]), &both, &[]), (Some(20), vec![]));
        assert_eq!(judged(&log(5, 30, &[(12, 15)]), &both, &[]), (Some(20), vec![(Loss::Recoverable, 0)]));
        assert_eq!(judged(&log(5, 30, &[(12, 21)]), &both, &[]), (None, vec![(Loss::OnlyReplicas, 0)]));
        assert_eq!(judged(&log(5, 25, &[(25, u64::MAX)]), &both, &[]), (None, vec![(Loss::OnlyReplicas, 0)]));
        // Each loss is judged by itself.
        let two = judged(&log(5, 30, &[(6, 8), (22, 23)]), &both, &[]);
        assert_eq!(two, (None, vec![(Loss::Recoverable, 0), (Loss::OnlyReplicas, 0)]));
        assert_eq!(judged(&log(1, 30, &[(2, 3)]), &[snapshot(20, false)], &[]), (None, vec![(Loss::OnlyReplicas, 0)]));
    }

    #[test]
    fn a_bad_snapshot_goes_only_where_another_source_was_read_to_its_end() {
        let bad = [found("manifest 30", FindingKind::Manifest)];
        assert_eq!(judged(&log(5, 40, &[]), &[snapshot(10, true)], &bad), (Some(10), vec![(Loss::Recoverable, 1)]));
        assert_eq!(judged(&log(1, 40, &[]), &[], &bad), (Some(1), vec![(Loss::Recoverable, 1)]));
        assert_eq!(judged(&log(5, 40, &[]), &[], &bad), (None, vec![(Loss::OnlyReplicas, 0)]));
        let lossy = judged(&log(5, 40, &[(12, 13)]), &[snapshot(10, true)], &bad);
        assert_eq!(lossy, (None, vec![(Loss::OnlyReplicas, 0), (Loss::OnlyReplicas, 0)]));

        let manifests = vec!["manifest 20".to_owned(), "manifest 10".to_owned()];
        let page = [found("page", FindingKind::Page { manifests })];
        let snapshots = [snapshot(20, false), snapshot(10, false)];
        assert_eq!(judged(&log(1, 40, &[]), &snapshots, &page), (Some(1), vec![(Loss::Recoverable, 2)]));
        assert_eq!(judged(&log(2, 40, &[]), &snapshots, &page), (None, vec![(Loss::OnlyReplicas, 0)]));

        let log = log(5, 40, &[]);
        let undecoded = Facts {
            directory: DIRECTORY,
            log: &log,
            snapshots: &[snapshot(10, true)],
            findings: &bad,
            is_decoded: false,
        };
        assert!(undecoded.diagnoses()[0].repairs.is_empty(), "nobody has loaded the one that is to stay");
    }

    #[test]
    fn whole_pages_that_do_not_load_are_told_and_kept() {
        let refused = SnapshotFacts { refusal: Some("arena \"meta\" is missing".to_owned()), ..snapshot(20, true) };
        let snapshots = [refused, snapshot(10, true)];
        assert_eq!(judged(&log(5, 40, &[]), &snapshots, &[]), (Some(10), vec![(Loss::Recoverable, 0)]));
    }

    #[test]
    fn log_and_snapshots_that_do_not_meet_are_noticed_though_each_is_whole() {
        assert_eq!(judged(&log(5, 40, &[]), &[], &[]), (None, vec![(Loss::OnlyReplicas, 0)]));
        assert_eq!(judged(&log(1, 8, &[]), &[snapshot(10, true)], &[]), (None, vec![(Loss::OnlyReplicas, 0)]));
        let both = [snapshot(20, true), snapshot(10, true)];
        assert_eq!(judged(&log(15, 40, &[]), &both, &[]), (Some(20), vec![(Loss::Recoverable, 0)]));
        // One that a crash has left is behind the log that was cut for the other two.
        let third = [snapshot(20, true), snapshot(15, true), snapshot(10, true)];
        assert_eq!(judged(&log(15, 40, &[]), &third, &[]), (Some(20), vec![]));
        assert_eq!(judged(&log(1, 1, &[]), &[], &[]), (Some(1), vec![]), "a collection just made");
    }

    #[test]
    fn a_torn_tail_is_cut_only_where_recovery_would_cut_it_and_no_snapshot_knew_it_whole() {
        let torn = |mut log: LogInspection| {
            log.findings.push(found("segment", FindingKind::TornTail { bytes: 9 }));
            log
        };
        assert_eq!(judged(&torn(log(1, 40, &[])), &[], &[]), (Some(1), vec![(Loss::Nothing, 1)]));
        let damaged = judged(&torn(log(1, 40, &[(3, 4)])), &[], &[]);
        assert_eq!(damaged, (None, vec![(Loss::OnlyReplicas, 0), (Loss::Nothing, 0)]));
        let known = judged(&torn(log(1, 40, &[])), &[snapshot(41, true)], &[]);
        assert_eq!(known, (None, vec![(Loss::OnlyReplicas, 0), (Loss::OnlyReplicas, 0)]));
    }
}
