//! Known answers for each kind of change, and what holds after any of them.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use vecino_model::{
    CollectionId, CollectionSchema, DiskId, FieldSchema, Fsync, MeshId, Metric, NodeId, Placement, Profile,
};

use super::entry::CHANGE_BYTES_MAX;
use super::*;

const ONE: CollectionId = CollectionId([1; 16]);
const OTHER: CollectionId = CollectionId([2; 16]);

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn disk(number: u8) -> DiskId {
    DiskId([number; 16])
}

fn place(number: u8) -> LayoutNode {
    LayoutNode { zone: format!("z{}", number % 3), tokens: vec![u64::from(number) << 56, u64::from(number) << 40] }
}

fn newcomer(number: u8) -> Newcomer {
    Newcomer { disk: disk(number), place: place(number) }
}

fn schema(replicas: u32) -> CollectionSchema {
    let field = FieldSchema { dim: 8, metric: Metric::Cosine, m: 16, ef_construction: 100, profile: Profile::Compact };
    CollectionSchema {
        fields: BTreeMap::from([("image".to_owned(), field)]),
        replication_factor: replicas,
        fsync: Fsync::EveryMs(7),
    }
}

fn form(nodes: u8) -> Change {
    let members = (1..=nodes).map(|number| (node(number), newcomer(number))).collect();
    let acceptors = (1..=nodes).map(|number| (node(number), disk(number))).collect();
    Change::Form { mesh: MeshId([9; 16]), members, acceptors }
}

fn create(id: CollectionId, name: &str, replicas: u32) -> Change {
    Change::Create { id, name: name.to_owned(), schema: schema(replicas), restoring: None }
}

fn entry(changes: &[Change]) -> Entry {
    Entry { changes: changes.iter().map(|change| EncodedChange::new(change).unwrap()).collect() }
}

/// A mesh of three nodes.
fn mesh() -> State {
    State::begin(&entry(&[form(3)])).unwrap().0
}

/// Applies one change as an entry of its own.
fn apply(state: &mut State, change: Change) -> Result<(), NoEffect> {
    state.apply(&entry(&[change])).unwrap().remove(0)
}

fn since(state: &State, id: CollectionId) -> u64 {
    state.collection(id).unwrap().since
}

/// What holds after every entry.
fn check(state: &State) {
    assert_eq!(state.hash, state.hash_anew(), "the hash is that of everything");
    let decoded = State::decode(&state.encode()).unwrap();
    assert_eq!(&decoded, state, "it survives its encoding");
    let names: BTreeMap<String, CollectionId> =
        state.collections.iter().map(|(id, collection)| (collection.name.clone(), *id)).collect();
    assert_eq!(names, state.names, "a name has one collection, and a collection its name");
    let (newest, layout) = state.newest_layout();
    assert!(!layout.is_empty());
    let mut used = BTreeSet::from([newest]);
    for (id, collection) in &state.collections {
        assert!(collection.since <= state.number && !state.dropped.contains_key(id));
        assert_eq!(collection.schema.replication_factor, collection.placing.replicas);
        for number in collection.layouts() {
            assert!(state.layouts.contains_key(&number), "layout {number} of a collection is gone");
            used.insert(number);
        }
        let places = std::iter::once(&collection.placing).chain(collection.moving.as_ref().map(|moving| &moving.to));
        for placing in places {
            assert!((1..=state.layouts[&placing.layout].len()).contains(&(placing.replicas as usize)));
        }
        assert!(collection.copies.keys().all(|node| state.is_kept_by(collection, *node)));
    }
    assert_eq!(state.layouts.keys().copied().collect::<BTreeSet<_>>(), used, "no layout is kept for nothing");
    assert!(!state.acceptors.len().is_multiple_of(2) || state.seated == 1);
    assert!(layout.nodes.keys().all(|node| state.members[node].standing == Standing::Staying));
}

#[test]
fn a_name_is_given_once_and_a_create_that_came_too_late_says_who_has_it() {
    let mut state = mesh();
    // Two nodes proposed at once, and both changes are in one entry.
    let effects = state.apply(&entry(&[create(ONE, "films", 3), create(OTHER, "films", 1)])).unwrap();
    assert_eq!(effects, [Ok(()), Err(NoEffect::NameInUse { name: "films".into(), id: ONE })]);
    assert_eq!((state.named("films"), since(&state, ONE), state.collection(OTHER)), (Some(ONE), 2, None));
    // A proposer that did not hear that it was chosen proposes it again.
    assert_eq!(apply(&mut state, create(ONE, "films", 3)), Err(NoEffect::IdInUse(ONE)));
    let refused = apply(&mut state, create(OTHER, "books", 4)).unwrap_err();
    assert_eq!(refused, NoEffect::TooFewNodes { name: "books".into(), replicas: 4, nodes: 3 });
    assert_eq!(apply(&mut state, create(OTHER, "books", 0)), Err(NoEffect::NoReplicas));
    check(&state);
}

#[test]
fn what_is_dropped_stays_so_until_nobody_need_know_and_its_name_is_free_at_once() {
    let mut state = mesh();
    apply(&mut state, create(ONE, "films", 3)).unwrap();
    let effects = state.apply(&entry(&[Change::Drop { id: ONE }, create(OTHER, "films", 2)])).unwrap();
    assert_eq!(effects, [Ok(()), Ok(())]);
    assert_eq!(state.named("films"), Some(OTHER));
    assert_eq!(state.dropped()[&ONE], Dropped { name: "films".into(), at: 3 });
    assert_eq!(apply(&mut state, Change::Drop { id: ONE }), Err(NoEffect::NoCollection(ONE)));
    assert_eq!(apply(&mut state, create(ONE, "more", 1)), Err(NoEffect::IdInUse(ONE)), "an id is used once");
    apply(&mut state, Change::Forget { ids: BTreeSet::from([ONE, OTHER]) }).unwrap();
    assert!(state.dropped().is_empty() && state.collection(OTHER).is_some(), "what is there is not forgotten");
    check(&state);
}

#[test]
fn of_two_nodes_that_join_at_once_the_second_chooses_its_tokens_anew() {
    let mut state = mesh();
    let join = |number: u8, after| Change::Join { node: node(number), newcomer: newcomer(number), after };
    let effects = state.apply(&entry(&[join(4, 1), join(5, 1)])).unwrap();
    assert_eq!(effects, [Ok(()), Err(NoEffect::Layout { newest: 2, after: 1 })]);
    apply(&mut state, join(5, 2)).unwrap();
    let again = apply(&mut state, join(5, 3));
    assert_eq!(again, Err(NoEffect::Member { node: node(5), disk: disk(5) }));
    assert_eq!((state.newest_layout().0, state.newest_layout().1.len(), state.layouts().len()), (3, 5, 1));
    let without = Newcomer { place: LayoutNode::default(), ..newcomer(6) };
    assert_eq!(apply(&mut state, Change::Join { node: node(6), newcomer: without, after: 3 }), Err(NoEffect::Nodes));
    check(&state);
}

#[test]
fn a_disk_that_is_another_votes_for_nothing_until_it_is_filled() {
    let mut state = mesh();
    apply(&mut state, create(ONE, "films", 3)).unwrap();
    let replace = |was, to| Change::ReplaceDisk { node: node(2), was: disk(was), disk: disk(to) };
    apply(&mut state, replace(2, 20)).unwrap();
    assert_eq!(apply(&mut state, replace(2, 21)), Err(NoEffect::Disk { node: node(2), disk: disk(20) }));
    let films = state.collection(ONE).unwrap();
    assert_eq!((films.since, films.votes(node(2)), films.votes(node(1)), films.copy(node(2))), (3, false, true, 3));
    // What is made later has nothing to be filled with.
    apply(&mut state, create(OTHER, "books", 3)).unwrap();
    assert!(state.collection(OTHER).unwrap().votes(node(2)));
    let filled = |number| Change::Filled { node: node(2), copies: BTreeMap::from([(ONE, number)]) };
    assert_eq!(apply(&mut state, filled(0)), Err(NoEffect::Copies(node(2))), "another copy than that");
    apply(&mut state, filled(3)).unwrap();
    assert!(state.collection(ONE).unwrap().votes(node(2)));
    assert_eq!(since(&state, ONE), state.number(), "who goes by what was has to ask again");
    assert_eq!(apply(&mut state, filled(3)), Err(NoEffect::Copies(node(2))));
    // One collection alone.
    let damaged = |id, was| Change::ReplaceCopy { node: node(2), id, was };
    assert_eq!(apply(&mut state, damaged(ONE, 0)), Err(NoEffect::Copies(node(2))));
    apply(&mut state, damaged(ONE, 3)).unwrap();
    assert!(!state.collection(ONE).unwrap().votes(node(2)) && state.collection(OTHER).unwrap().votes(node(2)));
    check(&state);
}

#[test]
fn a_move_ends_only_when_every_node_has_what_it_gains() {
    let mut state = mesh();
    apply(&mut state, create(ONE, "films", 3)).unwrap();
    apply(&mut state, Change::Join { node: node(4), newcomer: newcomer(4), after: 1 }).unwrap();
    let to = Placing { layout: 2, replicas: 3 };
    let begin = |since| Change::BeginMove {
        collections: BTreeMap::from([(ONE, since)]),
        to,
        gaining: BTreeSet::from([node(1), node(4)]),
    };
    assert_eq!(apply(&mut state, begin(1)), Err(NoEffect::Moved), "the collection has changed since");
    apply(&mut state, begin(2)).unwrap();
    let begun = state.number();
    assert_eq!(since(&state, ONE), begun);
    assert_eq!(apply(&mut state, begin(begun)), Err(NoEffect::Moved), "one move at a time");
    let moves = || BTreeMap::from([(ONE, begun)]);
    let gained = |number: u8| Change::Gained { node: node(number), disk: disk(number), moves: moves() };
    apply(&mut state, gained(1)).unwrap();
    assert_eq!(since(&state, ONE), begun, "nobody's quorums change by that");
    assert_eq!(apply(&mut state, Change::EndMove { moves: moves() }), Err(NoEffect::Moved), "node 4 lacks something");
    apply(&mut state, gained(4)).unwrap();
    // The disk of one that had everything is lost, and it has to gain it again.
    apply(&mut state, Change::ReplaceDisk { node: node(4), was: disk(4), disk: disk(40) }).unwrap();
    let copy = state.number();
    assert_eq!(apply(&mut state, gained(4)), Err(NoEffect::Disk { node: node(4), disk: disk(40) }));
    let gained = Change::Gained { node: node(4), disk: disk(40), moves: moves() };
    apply(&mut state, gained).unwrap();
    assert_eq!(apply(&mut state, Change::EndMove { moves: moves() }), Err(NoEffect::Moved), "node 4 does not vote");
    apply(&mut state, Change::Filled { node: node(4), copies: BTreeMap::from([(ONE, copy)]) }).unwrap();
    apply(&mut state, Change::EndMove { moves: moves() }).unwrap();
    let films = state.collection(ONE).unwrap();
    assert_eq!((films.placing, &films.moving, films.since), (to, &None, state.number()));
    assert_eq!(state.layouts().keys().copied().collect::<Vec<_>>(), [2], "nothing lies on the old layout");
    check(&state);
}

#[test]
fn a_move_that_is_turned_back_leaves_everything_as_it_was() {
    let mut state = mesh();
    apply(&mut state, create(ONE, "films", 3)).unwrap();
    apply(&mut state, Change::Join { node: node(4), newcomer: newcomer(4), after: 1 }).unwrap();
    let gaining = BTreeSet::from([node(4)]);
    let to = Placing { layout: 2, replicas: 2 };
    apply(&mut state, Change::BeginMove { collections: BTreeMap::from([(ONE, 2)]), to, gaining }).unwrap();
    let moves = BTreeMap::from([(ONE, state.number())]);
    apply(&mut state, Change::ReplaceCopy { node: node(4), id: ONE, was: 0 }).unwrap();
    apply(&mut state, Change::TurnBack { moves: moves.clone() }).unwrap();
    assert_eq!(apply(&mut state, Change::TurnBack { moves }), Err(NoEffect::Moved));
    let films = state.collection(ONE).unwrap();
    assert_eq!((films.placing, &films.moving), (Placing { layout: 1, replicas: 3 }, &None));
    assert!(films.copies.is_empty(), "node 4 keeps nothing");
    check(&state);
}

#[test]
fn a_node_goes_when_it_keeps_nothing_and_accepts_nothing_any_more() {
    let mut state = mesh();
    apply(&mut state, create(ONE, "films", 2)).unwrap();
    let leave = |number: u8, after, is_dead| Change::Leave { node: node(number), after, is_dead };
    assert_eq!(apply(&mut state, Change::Part { node: node(3) }), Err(NoEffect::Staying(node(3))));
    apply(&mut state, leave(3, 1, false)).unwrap();
    assert_eq!(apply(&mut state, leave(3, 2, false)), Err(NoEffect::LeavingAlready(node(3))));
    apply(&mut state, leave(3, 2, true)).unwrap();
    assert_eq!(state.members()[&node(3)].standing, Standing::Dead, "it died while it was leaving");
    let short = NoEffect::TooFewNodes { name: "films".into(), replicas: 2, nodes: 1 };
    assert_eq!(apply(&mut state, leave(2, 2, false)), Err(short));
    assert_eq!(apply(&mut state, Change::Part { node: node(3) }), Err(NoEffect::InUse(node(3))));
    let to = Placing { layout: 2, replicas: 2 };
    let collections = BTreeMap::from([(ONE, 2)]);
    apply(&mut state, Change::BeginMove { collections, to, gaining: BTreeSet::new() }).unwrap();
    let moves = BTreeMap::from([(ONE, state.number())]);
    apply(&mut state, Change::EndMove { moves }).unwrap();
    assert_eq!(apply(&mut state, Change::Part { node: node(3) }), Err(NoEffect::InUse(node(3))), "it accepts");
    let acceptors = best_acceptors(&state, |_| true);
    assert_eq!(acceptors, BTreeMap::from([(node(1), disk(1))]), "an odd number of those that stay");
    apply(&mut state, Change::Seat { after: 1, acceptors }).unwrap();
    apply(&mut state, Change::Part { node: node(3) }).unwrap();
    assert_eq!(state.members().len(), 2);
    assert_eq!(apply(&mut state, leave(9, 2, false)), Err(NoEffect::NoMember(node(9))));
    check(&state);
    let mut alone = State::begin(&entry(&[form(1)])).unwrap().0;
    assert_eq!(apply(&mut alone, leave(1, 1, false)), Err(NoEffect::LastMember(node(1))));
}

#[test]
fn acceptors_are_seated_by_disk_and_only_by_who_knows_those_before() {
    let mut state = mesh();
    let seat = |after, numbers: &[(u8, u8)]| Change::Seat {
        after,
        acceptors: numbers.iter().map(|(of, on)| (node(*of), disk(*on))).collect(),
    };
    for wrong in [seat(0, &[(1, 1)]), seat(1, &[(1, 1), (2, 2)]), seat(1, &[(1, 7)]), seat(1, &[(8, 8)]), seat(1, &[])]
    {
        assert_eq!(apply(&mut state, wrong), Err(NoEffect::Acceptors));
    }
    // A disk is replaced: it accepts nothing until it is named, in the same entry if need be.
    let replace = Change::ReplaceDisk { node: node(2), was: disk(2), disk: disk(20) };
    apply(&mut state, replace).unwrap();
    assert_eq!(state.acceptors()[&node(2)], disk(2));
    assert_eq!(lost_acceptors(&state), BTreeSet::from([node(2)]));
    let all = [(1, 1), (2, 20), (3, 3)];
    let effects = state.apply(&entry(&[seat(1, &all), seat(1, &[(1, 1)])])).unwrap();
    assert_eq!(effects, [Ok(()), Err(NoEffect::Acceptors)]);
    assert_eq!((state.seated(), state.acceptors()[&node(2)]), (state.number(), disk(20)));
    check(&state);
}

#[test]
fn the_best_acceptors_are_up_and_in_many_zones_and_change_no_more_than_they_must() {
    let numbers = |chosen: BTreeMap<NodeId, DiskId>| -> Vec<u8> { chosen.keys().map(|id| id.as_bytes()[0]).collect() };
    let nine = State::begin(&entry(&[form(9)])).unwrap().0;
    assert_eq!(numbers(best_acceptors(&nine, |_| true)), [1, 2, 3, 4, 5, 6, 7]);
    // Zones of 1, 2, 3 are z1, z2, z0: two of one zone come only where there is no third.
    let five = State::begin(&entry(&[form(5)])).unwrap().0;
    assert_eq!(numbers(best_acceptors(&five, |_| true)), [1, 2, 3, 4, 5]);
    let down = best_acceptors(&nine, |id| id != node(2));
    assert_eq!((down.len(), down.contains_key(&node(2))), (7, false));
    let mut state = nine.clone();
    let acceptors: BTreeMap<_, _> = [7, 8, 9].map(|number| (node(number), disk(number))).into();
    apply(&mut state, Change::Seat { after: 1, acceptors }).unwrap();
    let chosen = numbers(best_acceptors(&state, |_| true));
    assert!([7, 8, 9].iter().all(|number| chosen.contains(number)), "{chosen:?}");
}

#[test]
fn collections_of_a_mesh_without_a_log_stay_where_they_are() {
    let placement =
        |numbers: &[u8]| -> Placement { numbers.iter().map(|number| (node(*number), place(*number).tokens)).collect() };
    let adopt = |id, name: &str, numbers: &[u8]| Change::Adopt {
        id,
        name: name.to_owned(),
        schema: schema(2),
        placement: placement(numbers),
    };
    let third = CollectionId([3; 16]);
    let changes = [
        form(3),
        adopt(ONE, "films", &[1, 2, 3]),
        adopt(OTHER, "books", &[1, 2]),
        adopt(third, "songs", &[1, 2]),
        adopt(CollectionId([4; 16]), "songs", &[1]),
    ];
    let (mut state, effects) = State::begin(&entry(&changes)).unwrap();
    assert_eq!(effects[..4], [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(effects[4], Err(NoEffect::NameInUse { name: "songs".into(), id: third }));
    let lies = |state: &State, id| {
        let layout = state.collection(id).unwrap().placing.layout;
        state.layouts()[&layout].placement()
    };
    assert_eq!(lies(&state, ONE), placement(&[1, 2, 3]));
    assert_eq!((lies(&state, OTHER), lies(&state, third)), (placement(&[1, 2]), placement(&[1, 2])));
    assert_eq!((state.layouts().len(), state.newest_layout().1.len()), (2, 3));
    check(&state);
    assert_eq!(apply(&mut state, adopt(CollectionId([5; 16]), "late", &[1])), Err(NoEffect::Begun));
    assert_eq!(apply(&mut state, form(3)), Err(NoEffect::Begun));
    let nobody = Change::Form { mesh: MeshId([9; 16]), members: BTreeMap::new(), acceptors: BTreeMap::new() };
    for wrong in [entry(&[]), entry(&[create(ONE, "films", 1)]), entry(&[nobody])] {
        assert_eq!(State::begin(&wrong).unwrap_err(), NoBeginning::NoMembers);
    }
}

#[test]
fn a_restore_writes_alone_until_it_is_over_and_settings_change_once() {
    let mut state = mesh();
    let (this, that) = (RestoreId([5; 16]), RestoreId([6; 16]));
    apply(&mut state, Change::Create { id: ONE, name: "films".into(), schema: schema(1), restoring: Some(this) })
        .unwrap();
    assert_eq!(state.collection(ONE).unwrap().restoring, Some(this));
    assert_eq!(apply(&mut state, Change::EndRestore { id: ONE, restore: that }), Err(NoEffect::NoRestore(ONE)));
    apply(&mut state, Change::EndRestore { id: ONE, restore: this }).unwrap();
    assert_eq!((state.collection(ONE).unwrap().restoring, since(&state, ONE)), (None, state.number()));
    apply(&mut state, Change::SetFsync { id: ONE, fsync: Fsync::Never }).unwrap();
    assert_eq!(apply(&mut state, Change::SetFsync { id: ONE, fsync: Fsync::Never }), Err(NoEffect::Same));
    let same = state.newest_layout().1.nodes.clone();
    assert_eq!(apply(&mut state, Change::Rearrange { after: 1, nodes: same.clone() }), Err(NoEffect::Same));
    let mut other = same.clone();
    other.get_mut(&node(1)).unwrap().tokens = vec![77];
    apply(&mut state, Change::Rearrange { after: 1, nodes: other }).unwrap();
    let mut fewer = same;
    fewer.remove(&node(1));
    assert_eq!(apply(&mut state, Change::Rearrange { after: 2, nodes: fewer }), Err(NoEffect::Nodes));
    check(&state);
}

#[test]
fn a_kind_that_is_not_known_stops_before_it_and_changes_nothing() {
    let mut state = mesh();
    let before = state.clone();
    let newer = EncodedChange { kind: 900, format: 1, body: vec![1, 2, 3] };
    let known = EncodedChange::new(&create(ONE, "films", 1)).unwrap();
    let later = EncodedChange { format: 2, ..known.clone() };
    for change in [newer, later] {
        let entry = Entry { changes: vec![known.clone(), change.clone()] };
        let refused = state.apply(&entry).unwrap_err();
        assert_eq!(refused, Unreadable::Unknown { kind: change.kind, format: change.format });
        assert!(refused.to_string().contains("start a newer version"), "{refused}");
        assert_eq!(state, before, "nothing of the entry is applied");
    }
}

#[test]
fn a_change_that_is_too_large_is_refused_before_it_is_proposed() {
    let nodes = |count: u32| {
        let node = |number: u32| {
            let id = NodeId::from_bytes(std::array::from_fn(|byte| number.to_le_bytes()[byte % 4]));
            (id, LayoutNode { zone: String::new(), tokens: vec![u64::MAX; 16] })
        };
        Change::Rearrange { after: 1, nodes: (0..count).map(node).collect() }
    };
    EncodedChange::new(&nodes(390)).unwrap();
    let refused = EncodedChange::new(&nodes(500)).unwrap_err().to_string();
    assert!(refused.contains(&format!("the limit is {CHANGE_BYTES_MAX}")), "{refused}");
}

// -------------------------------------------------------------------------------------------------------- by chance

/// Ids, numbers and names are few, so that changes meet.
fn any_change(random: &mut Rng, state: &State) -> Change {
    let of = node(random.u8(1..8));
    let id = CollectionId([random.u8(1..6); 16]);
    let newest = state.newest_layout().0;
    let after = if random.u8(..4) == 0 { random.u64(..4) } else { newest };
    let mut some = |what: fn(&CollectionState) -> u64| -> BTreeMap<CollectionId, u64> {
        let known = state.collections.iter().filter(|_| random.bool());
        let known: Vec<(CollectionId, u64)> = known.map(|(id, collection)| (*id, what(collection))).collect();
        known.into_iter().map(|(id, number)| (id, if random.u8(..5) == 0 { random.u64(..9) } else { number })).collect()
    };
    let begun = |collection: &CollectionState| collection.moving.as_ref().map_or(0, |moving| moving.begun);
    let (sinces, moves) = (some(|collection| collection.since), some(begun));
    let known_disk = state.members.get(&of).map_or(disk(0), |member| member.disk);
    match random.u8(..24) {
        0 | 1 => Change::Join { node: of, newcomer: newcomer(of.as_bytes()[0]), after },
        2 => Change::Leave { node: of, after, is_dead: random.bool() },
        3 | 4 => Change::Part { node: of },
        5 => Change::Rearrange {
            after,
            nodes: state
                .newest_layout()
                .1
                .nodes
                .keys()
                .map(|node| (*node, LayoutNode { zone: String::new(), tokens: vec![random.u64(..)] }))
                .collect(),
        },
        6 | 7 => Change::Seat { after: state.seated, acceptors: best_acceptors(state, |node| node != of) },
        8 => Change::ReplaceDisk { node: of, was: known_disk, disk: disk(random.u8(20..)) },
        9 => Change::ReplaceCopy { node: of, id, was: state.collection(id).map_or(0, |known| known.copy(of)) },
        10..=12 => {
            let copies = state.collections.iter().map(|(id, known)| (*id, known.copy(of))).collect();
            Change::Filled { node: of, copies }
        }
        13 | 14 => Change::Create {
            id,
            name: format!("c{}", random.u8(..4)),
            schema: schema(random.u32(..4)),
            restoring: random.bool().then_some(RestoreId([1; 16])),
        },
        15 => Change::EndRestore { id, restore: RestoreId([1; 16]) },
        16 => Change::SetFsync { id, fsync: Fsync::EveryMs(random.u32(..3)) },
        17 => Change::Drop { id },
        18 => Change::Forget { ids: BTreeSet::from([id]) },
        19 | 20 => {
            let layouts: Vec<u64> = state.layouts.keys().copied().collect();
            let to = Placing { layout: *random.choice(&layouts).unwrap(), replicas: random.u32(..5) };
            let gaining = state.layouts[&to.layout].nodes.keys().filter(|_| random.bool()).copied().collect();
            Change::BeginMove { collections: sinces, to, gaining }
        }
        21 => Change::Gained { node: of, disk: known_disk, moves },
        22 => Change::EndMove { moves },
        _ => Change::TurnBack { moves },
    }
}

#[test]
fn what_holds_holds_after_any_changes_and_all_come_to_the_same() {
    let mut had_effect = [0; 24];
    for seed in 0..400 {
        let mut random = Rng::with_seed(seed);
        let first = entry(&[form(random.u8(1..6))]);
        let (mut state, _) = State::begin(&first).unwrap();
        let mut entries = vec![first];
        for _ in 0..60 {
            let changes: Vec<Change> = (0..random.usize(1..4)).map(|_| any_change(&mut random, &state)).collect();
            let encoded = entry(&changes);
            for (change, encoded) in changes.iter().zip(&encoded.changes) {
                assert_eq!(&encoded.decode().unwrap(), change, "seed {seed}");
            }
            let effects = state.apply(&encoded).unwrap();
            for (change, effect) in encoded.changes.iter().zip(&effects) {
                had_effect[usize::from(change.kind)] += u32::from(effect.is_ok());
            }
            check(&state);
            entries.push(encoded);
        }
        // Another node folds the same entries, and one that was away goes on from the state.
        let mut other = State::begin(&entries[0]).unwrap().0;
        let half = entries.len() / 2;
        entries[1..half].iter().for_each(|entry| drop(other.apply(entry).unwrap()));
        let mut fetched = State::decode(&other.encode()).unwrap();
        for entry in &entries[half..] {
            other.apply(entry).unwrap();
            fetched.apply(entry).unwrap();
        }
        assert_eq!((&other, &fetched), (&state, &state), "seed {seed}");
        assert_eq!(other.hash(), state.hash());
    }
    let idle: Vec<usize> = (3..=19).filter(|kind| had_effect[*kind] == 0).collect();
    assert!(idle.is_empty(), "kinds {idle:?} never had an effect");
}

#[test]
fn bytes_that_are_no_change_or_no_state_are_an_error() {
    let mut random = Rng::with_seed(5);
    let mut state = mesh();
    for _ in 0..40 {
        let change = any_change(&mut random, &state);
        let _ = apply(&mut state, change);
    }
    let whole = state.encode();
    for _ in 0..20_000 {
        let change = EncodedChange::new(&any_change(&mut random, &state)).unwrap();
        let mut bytes = if random.bool() { change.body.clone() } else { whole.clone() };
        match random.u8(..3) {
            0 => bytes.truncate(random.usize(..=bytes.len())),
            1 => bytes.push(random.u8(..)),
            _ => {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
        }
        let kind = random.u16(..22);
        if let Ok(decoded) = (EncodedChange { kind, format: 1, body: bytes.clone() }).decode() {
            let mut changed = state.clone();
            let _ = apply(&mut changed, decoded);
            check(&changed);
        }
        if let Ok(decoded) = State::decode(&bytes) {
            assert_eq!(State::decode(&decoded.encode()).unwrap(), decoded);
        }
    }
}

/// Nodes of different versions have to come to the same hash: these bytes never change.
#[test]
fn entries_and_states_have_the_bytes_that_they_always_had() {
    let changes = [
        form(3),
        Change::Adopt {
            id: ONE,
            name: "films".into(),
            schema: schema(2),
            placement: Placement::from([(node(1), vec![7])]),
        },
    ];
    let (mut state, _) = State::begin(&entry(&changes)).unwrap();
    let drop = EncodedChange::new(&Change::Drop { id: OTHER }).unwrap();
    assert_eq!((drop.kind, drop.format), (14, 1));
    assert_eq!(drop.body, [&[0x91, 0xc4, 16][..], &[2; 16]].concat());
    assert_eq!(state.hash().to_string(), "9495209c696b198da577d454a5c541cf");
    state.apply(&entry(&[create(OTHER, "books", 3), Change::Drop { id: ONE }])).unwrap();
    assert_eq!(state.hash().to_string(), "42b7a809f567bd6b67392206e03e818d");
}
