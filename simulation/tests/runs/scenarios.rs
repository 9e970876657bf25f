//! Single situations in which something once went wrong.

use std::time::Duration;

use vecino_mesh::plants::{Plant, Plants};
use vecino_model::NodeId;
use vecino_simulation::{Deed, Fault, Options, Report, Scenario};

const MS: Duration = Duration::from_millis(1);
const HOUR_MS: i64 = 3_600_000;

/// Puts and gets of so many points in turn, at this pace.
fn puts_and_gets(points: u64, times: usize, pace: Duration) -> Vec<(Duration, Deed)> {
    let deed = |time: usize| {
        let point = time as u64 / 2 % points;
        (pace, if time.is_multiple_of(2) { Deed::Put(point) } else { Deed::Get(point) })
    };
    (0..2 * times).map(deed).collect()
}

fn broken(plant: Plant) -> Options {
    Options { plants: Plants::only(plant), ..Options::default() }
}

fn all_done(report: &Report) {
    assert_eq!(report.violation, None);
    assert_eq!(report.done, report.operations, "some operations failed");
}

/// Named after what went wrong: one node an hour ahead, and a collection that could not be made through it, stopped all
/// writes of the mesh for the hour.
#[test]
fn a_wrong_clock_stops_nobody_else() {
    for by_ms in [HOUR_MS, -HOUR_MS, 2_000] {
        let scenario = Scenario::new(3, 4)
            .client(puts_and_gets(4, 30, 10 * MS))
            .client(puts_and_gets(4, 30, 7 * MS))
            .fault_before(Fault::ClockJump { node: 0, by_ms })
            .fault(50 * MS, Fault::Create { node: 0 })
            .fault(100 * MS, Fault::Cut { from: 0, to: 1, length: 50 * MS });
        all_done(&scenario.run());
    }
}

/// Named after what went wrong: a node whose clock was set back by ten minutes refused puts for as long.
#[test]
fn a_clock_set_back_goes_on_writing() {
    let scenario = |options| {
        Scenario::new(3, 2)
            .with(options)
            .client(puts_and_gets(2, 30, 10 * MS))
            .fault(200 * MS, Fault::ClockJump { node: 0, by_ms: -600_000 })
            .run()
    };
    all_done(&scenario(Options::default()));
    let once = scenario(broken(Plant::ClocksDecide));
    assert!(once.done < once.operations, "it was refused once");
}

/// Named after what went wrong: a point that a node had stamped whose clock was ahead could be neither read nor written.
#[test]
fn a_version_from_the_future_is_read_and_overwritten() {
    let scenario = |options| {
        Scenario::new(3, 2)
            .with(options)
            .client(puts_and_gets(2, 60, 10 * MS))
            .fault_before(Fault::ClockJump { node: 0, by_ms: HOUR_MS })
            .fault(300 * MS, Fault::ClockJump { node: 0, by_ms: -HOUR_MS })
            .run()
    };
    all_done(&scenario(Options::default()));
    let once = scenario(broken(Plant::ClocksDecide));
    assert!(once.done < once.operations || once.violation.is_some(), "it was refused once");
}

/// Named after what went wrong: what a replica refused while it had too much to do, it never got.
#[test]
fn under_load_every_replica_gets_every_put() {
    let scenario = |options| {
        let scenario = Scenario::new(3, 20).with(options);
        let scenario = (0..8).fold(scenario, |scenario, _| scenario.client(puts_and_gets(20, 20, MS)));
        scenario
            .fault(20 * MS, Fault::Overload { node: 1, length: 100 * MS })
            .fault(150 * MS, Fault::Overload { node: 2, length: 100 * MS })
            .fault(260 * MS, Fault::Overload { node: 0, length: 40 * MS })
            .run()
    };
    let report = scenario(Options::default());
    assert_eq!(report.violation, None);
    let once = scenario(broken(Plant::MissedWritesAreForgotten)).violation.unwrap();
    assert_eq!(once.checker, "every replica", "{once}");
}

/// Named after what went wrong: what a replica had missed was in the memory of the node that was asked, and gone with it.
#[test]
fn what_a_replica_missed_outlives_the_node_that_was_asked() {
    let scenario = |options| {
        Scenario::new(3, 20)
            .with(options)
            .client((0..20).map(|point| (10 * MS, Deed::Put(point))))
            .fault(Duration::ZERO, Fault::Overload { node: 2, length: 4_000 * MS })
            // Long enough after the last put for what was kept to be flushed.
            .fault(1_500 * MS, Fault::Crash { node: 0, off: 1_000 * MS })
            .keeping_hints()
            .run()
    };
    all_done(&scenario(Options::default()));
    let once = scenario(broken(Plant::MissedWritesAreForgotten)).violation.unwrap();
    assert_eq!(once.checker, "every replica", "{once}");
}

/// Named after what went wrong: a node that was behind filled its list with what was not there any more, and another had
/// missed what was; `k` others were confirmed, and the nearest point of all was left out.
#[test]
fn a_search_through_nodes_that_each_missed_something_finds_what_either_has() {
    let scenario = |options: Options, seed: u64| {
        let near = (0..40).map(|point| (MS, Deed::PutAt(point, 490 + point / 2)));
        let far = (0..40).map(|point| (if point == 0 { 320 * MS } else { MS }, Deed::PutAt(point, 900 + point)));
        let searches = (0..40).map(|_| (2 * MS, Deed::Search(10, 500)));
        Scenario::new(3, 41)
            .seed(seed)
            .with(options)
            .client(near)
            .client(far)
            .client([(720 * MS, Deed::PutAt(40, 530))].into_iter().chain(searches))
            // Node 0 misses that the others, which were nearer, went away, and node 1 that the last one came.
            .fault(300 * MS, Fault::Overload { node: 0, length: 410 * MS })
            .fault(690 * MS, Fault::Overload { node: 1, length: 2_000 * MS })
            .run()
    };
    // The first search mends what it finds, so it must be the one that asks nodes 0 and 1.
    (0..12).for_each(|seed| all_done(&scenario(Options::default(), seed)));
    let once: Vec<_> = (0..12).filter_map(|seed| scenario(broken(Plant::NoSearchHorizon), seed).violation).collect();
    assert!(!once.is_empty() && once.iter().all(|violation| violation.checker == "search"), "{once:?}");
}

/// Named after what went wrong: a point that was overwritten between the search of a node and the look at its version was
/// dropped from the answer, though it had been there all the time.
#[test]
fn a_point_that_is_overwritten_meanwhile_is_found_in_one_of_its_versions() {
    let scenario = |options: Options| {
        let scenario = Scenario::new(3, 5).with(options);
        let first = (0..5).map(|point| (MS, Deed::Put(point)));
        let writes = |from: u64| (0..80).map(move |time| (MS / 4, Deed::Put((from + time) % 5)));
        let searches =
            || [(100 * MS, Deed::Search(5, 500))].into_iter().chain((0..80).map(|_| (MS / 2, Deed::Search(5, 500))));
        let writing = (0..4).fold(scenario.client(first), |scenario, client| {
            scenario.client([(100 * MS, Deed::Get(0))].into_iter().chain(writes(client)))
        });
        writing.client(searches()).client(searches()).run()
    };
    all_done(&scenario(Options::default()));
    let once = scenario(broken(Plant::OverwrittenHitsAreDropped)).violation.unwrap();
    assert_eq!(once.checker, "search", "{once}");
}

/// Named after what went wrong: for as long as one direction of a link was cut, each read that asked that peer first waited
/// for it anew.
#[test]
fn a_peer_that_does_not_answer_is_asked_last() {
    let late = |cut: bool| {
        let deeds = (0..300).map(|time| (10 * MS, Deed::Get(time % 10)));
        let scenario = Scenario::new(3, 10).client((0..10).map(|point| (MS, Deed::Put(point))).chain(deeds));
        let length = if cut { Duration::from_secs(20) } else { Duration::ZERO };
        let report = scenario
            .fault(500 * MS, Fault::Cut { from: 1, to: 0, length })
            .fault(500 * MS, Fault::Cut { from: 0, to: 1, length })
            .run();
        all_done(&report);
        report.took.iter().filter(|took| **took > 15 * MS).count()
    };
    // A read in a hundred is late for other reasons.
    let (without, with) = (late(false), late(true));
    assert!(with > 0 && with <= without + 5, "{with} of 310 were late, and {without} where nothing was cut");
}

/// A new node looks for the mesh while clients work, and then answers for what was there before it came.
#[test]
fn a_node_that_joins_under_load_answers_for_everything() {
    let traced = Options { trace: true, ..Options::default() };
    let load = |scenario: Scenario| scenario.client(puts_and_gets(8, 40, 10 * MS)).client(puts_and_gets(8, 40, 7 * MS));
    let report = load(Scenario::new(3, 8).with(traced))
        .fault(200 * MS, Fault::Join { node: 3 })
        // The seed that it asks first is silent.
        .fault(190 * MS, Fault::Pause { node: 0, length: 2_000 * MS })
        .fault(600 * MS, Fault::Join { node: 4 })
        .fault(650 * MS, Fault::Crash { node: 4, off: 300 * MS })
        .run();
    all_done(&report);
    let lines = |what: &str| report.trace.iter().filter(|line| line.contains(what)).count();
    for node in [3, 4] {
        assert_eq!(lines(&format!("node {node} joins through")), 1, "node {node}");
        assert!(lines(&format!("sends Get to node {node}")) >= 8 && lines(&format!("sends Search to node {node}")) > 0);
    }
}

#[test]
fn nodes_that_have_no_mesh_yet_make_one() {
    for seed in 0..10 {
        let traced = Options { trace: true, ..Options::default() };
        let scenario = Scenario::new(5, 4).seed(seed).forming().with(traced).client(puts_and_gets(4, 30, 10 * MS));
        let report = scenario.run();
        all_done(&report);
        let lines = |what: &str| report.trace.iter().filter(|line| line.contains(what)).count();
        assert_eq!((lines("starts a mesh"), lines("joins through")), (1, 4), "seed {seed}");
    }
}

/// Puts wait for room, or fail; what was there before stays, on the full nodes too.
#[test]
fn a_full_disk_refuses_puts_and_loses_nothing() {
    let fill = |scenario: Scenario, node: &usize| {
        scenario.fault(300 * MS, Fault::FullDisk { node: *node, length: 2_500 * MS })
    };
    for over_the_engine in [false, true] {
        let run = |full: &[usize]| {
            let scenario = if over_the_engine { Scenario::new(3, 6).over_the_engine() } else { Scenario::new(3, 6) };
            let scenario = scenario.client(puts_and_gets(6, 250, 10 * MS)).client(puts_and_gets(6, 250, 7 * MS));
            let report = full.iter().fold(scenario, fill).run();
            assert_eq!(report.violation, None);
            report.operations - report.done + report.took.iter().filter(|took| **took > 100 * MS).count()
        };
        assert_eq!(run(&[1]), 0, "two replicas are enough");
        assert!(run(&[1, 2]) > 0, "one is not");
    }
}

/// A power cut while the disk is full: the engine opens when there is room again, with everything.
#[test]
fn a_node_whose_full_disk_loses_power_has_everything_when_there_is_room() {
    for seed in 0..20 {
        let scenario = Scenario::new(3, 6).seed(seed).over_the_engine().client(puts_and_gets(6, 60, 10 * MS));
        let scenario = scenario
            .fault(200 * MS, Fault::FullDisk { node: 1, length: 900 * MS })
            .fault(400 * MS, Fault::Crash { node: 1, off: 100 * MS })
            .fault(800 * MS, Fault::Overload { node: 2, length: 5_000 * MS })
            .fault(1_200 * MS, Fault::Cut { from: 0, to: 2, length: 3_000 * MS });
        assert_eq!(scenario.run().violation, None, "seed {seed}");
    }
}

/// What is written is on two replicas; then the disk of one of them is harmed, and the other is paused.
fn harmed(fault: Fault) -> Scenario {
    let puts = (0..4).map(|point| (MS, Deed::Put(point)));
    let gets = (0..4).map(|point| (if point == 0 { 900 * MS } else { MS }, Deed::Get(point)));
    Scenario::new(3, 4)
        .client(puts.chain(gets))
        .fault_before(Fault::Overload { node: 2, length: 30_000 * MS })
        .fault(500 * MS, fault)
        .fault(700 * MS, Fault::Pause { node: 0, length: 5_000 * MS })
}

/// What is not promised yet: a replica that lost what it had acknowledged votes as if it had not. When that is mended,
/// these faults join the others.
#[test]
fn a_disk_that_lost_what_was_acknowledged_still_votes() {
    let (node, off) = (1, 50 * MS);
    let by = 600 * MS;
    for fault in [Fault::EmptyDisk { node, off }, Fault::LoseFolder { node, off }, Fault::RollBack { node, by, off }] {
        for over_the_engine in [false, true] {
            let scenario = harmed(fault.clone());
            let scenario = if over_the_engine { scenario.over_the_engine() } else { scenario };
            let violation = scenario.run().violation.unwrap_or_else(|| panic!("{fault:?} is not seen"));
            assert_eq!(violation.checker, "linearizable", "{fault:?}: {violation}");
        }
    }
}

/// Runs in which a byte changes on the disk of a replica: how many of them see it refuse to answer.
fn damaged(seeds: u64, mesh: impl Fn(Scenario) -> Scenario) -> usize {
    let traced = Options { trace: true, ..Options::default() };
    let run = |seed| mesh(harmed(Fault::Damage { node: 1, off: 50 * MS }).seed(seed).with(traced)).run();
    let is_refusing = |report: &Report| {
        assert_eq!(report.violation, None, "seed {}", report.seed);
        report.trace.iter().any(|line| line.contains("is not open on node"))
    };
    (0..seeds).map(run).filter(is_refusing).count()
}

#[test]
fn a_damaged_replica_refuses_to_answer_or_has_everything() {
    let over_maps = damaged(20, |scenario| scenario);
    assert!((5..=15).contains(&over_maps), "{over_maps} of 20");
    let over_the_engine = damaged(40, Scenario::over_the_engine);
    assert!(over_the_engine > 20, "the engine finds most of what is changed: {over_the_engine} of 40");
}

/// One node of three may be gone for good, and a new one in its place coordinates.
#[test]
fn a_node_that_is_gone_for_good_keeps_nobody_from_writing() {
    for fault in [Fault::Remove { node: 0 }, Fault::Leave { node: 0 }, Fault::Replace { node: 0, by: 3 }] {
        let scenario = Scenario::new(3, 4).client(puts_and_gets(4, 60, 10 * MS)).client(puts_and_gets(4, 60, 7 * MS));
        let report = scenario.fault(200 * MS, fault.clone()).run();
        assert_eq!(report.violation, None, "{fault:?}");
        assert!(report.done + 2 >= report.operations, "{fault:?}: {} of {}", report.done, report.operations);
    }
}

/// The nodes that gave versions at level `one`, by the pauses of a client that asks them in turn, node 0 first.
fn stamped_by(scenario: Scenario, pauses: &[Duration]) -> Vec<NodeId> {
    let stamps = |pause: &Duration| [(*pause, Deed::StampOne(0)), (MS, Deed::StampOne(1))];
    let report = pauses.iter().fold(scenario, |scenario, pause| scenario.client(stamps(pause))).run();
    all_done(&report);
    report.stamps.iter().map(|stamp| stamp.node).collect()
}

/// At level `one` clocks decide, so a node whose own is off leaves it to the others.
#[test]
fn a_node_whose_clock_is_off_gives_no_versions_at_level_one() {
    let (early, late) = (100 * MS, 1_000 * MS);
    let [first, ..] = stamped_by(Scenario::new(3, 2), &[early])[..] else { panic!("node 0 is asked first") };
    for by_ms in [HOUR_MS, -HOUR_MS, 600, -600] {
        let scenario = Scenario::new(3, 2)
            .fault_before(Fault::ClockJump { node: 0, by_ms })
            .fault(500 * MS, Fault::ClockJump { node: 0, by_ms: -by_ms });
        let by = stamped_by(scenario, &[early, late]);
        assert!(by[..2].iter().all(|node| *node != first), "{by:?}");
        assert_eq!(by[2..], [first, first], "it was set right");
    }
    let near = Scenario::new(3, 2).fault_before(Fault::ClockJump { node: 0, by_ms: 400 });
    assert_eq!(stamped_by(near, &[early]), [first, first]);
}

/// What has waited for a node while it was paused is late, and says nothing of clocks.
#[test]
fn a_node_that_was_paused_or_hears_late_gives_versions_at_level_one() {
    let [first, ..] = stamped_by(Scenario::new(3, 2), &[MS])[..] else { panic!("node 0 is asked first") };
    for seconds in [2, 20, 58] {
        let length = Duration::from_secs(seconds);
        let scenario = Scenario::new(3, 2)
            .client(puts_and_gets(2, 200, 20 * MS))
            .fault(100 * MS, Fault::Pause { node: 0, length });
        let by = stamped_by(scenario, &[100 * MS + length + MS, 100 * MS + length + 700 * MS]);
        assert_eq!(by, [first; 4], "after {seconds} s");
    }
}

/// Named after what went wrong: clients sent their batches again that were still under way, all of them did twice what could
/// not even be done once, and goodput fell to a fifth.
#[test]
fn overload_is_refused_in_time_and_goodput_stays() {
    // A replica does five batches a second, and a client waits for ten seconds.
    let load = |clients: u64, deeds: u64, is_bounded: bool| {
        let scenario = (0..clients).fold(Scenario::new(3, clients), |scenario, client| {
            scenario.client((0..deeds).map(move |_| (MS, Deed::Put(client))))
        });
        let scenario = if is_bounded { scenario.large(4) } else { scenario };
        scenario.apply_takes(200 * MS).run()
    };
    let goodput = |report: &Report, clients: usize| {
        assert_eq!(report.violation, None);
        // In the end each point is read, written and read once more.
        (report.done - 3 * clients) as f64 / report.lasted.as_secs_f64()
    };
    let best = load(16, 30, true);
    all_done(&best);
    let best = goodput(&best, 16);
    assert!(best > 4.5, "{best} batches a second");
    let over = goodput(&load(128, 12, true), 128);
    assert!(over >= 0.8 * best, "{over} batches a second, and {best} at the best");
    let once = goodput(&load(128, 12, false), 128);
    assert!(once < 0.2 * best, "{once} batches a second, where all is begun at once and sent again");
}

/// A node that does nothing for a minute, and then goes on with what it had.
#[test]
fn a_paused_node_neither_blocks_the_mesh_nor_harms_it_when_it_wakes() {
    for node in 0..3 {
        let pause = Duration::from_secs(60);
        let scenario = (0..3).fold(Scenario::new(3, 8), |scenario, client| {
            let deeds = (0..900).map(move |time| {
                let point = (time + 3 * client) % 8;
                (100 * MS, if time % 2 == 0 { Deed::Put(point) } else { Deed::Get(point) })
            });
            scenario.client(deeds)
        });
        let report = scenario.fault(Duration::from_secs(5), Fault::Pause { node, length: pause }).run();
        all_done(&report);
        let slowest = report.took.iter().max().unwrap();
        assert!(*slowest < Duration::from_secs(1), "{slowest:?} while node {node} was paused");
    }
}
