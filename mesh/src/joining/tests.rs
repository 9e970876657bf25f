//! Nodes that look for each other in virtual time.

use super::*;

/// How long a message takes.
const DELAY: Duration = Duration::from_millis(5);
/// By when every node must have its mesh.
const PATIENCE: Duration = Duration::from_secs(60);

fn id(number: usize) -> NodeId {
    NodeId::from_bytes([number as u8 + 1; 16])
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 7450))
}

fn seed(number: usize) -> String {
    format!("node{number}:7450")
}

fn now(time: Time) -> Now {
    Now { time, wall_ms: 0 }
}

fn at(ms: u64) -> Time {
    Time::default() + Duration::from_millis(ms)
}

/// What a node goes on with.
type Arrived = Option<(CallId, Arrival)>;

/// A node that was started, or will be.
struct Member {
    starts_at: Time,
    joining: Option<Joining>,
    joined: Option<Joined>,
    said: Vec<Notice>,
}

/// Nodes, and what is on its way between them.
struct Street {
    seeds: Vec<String>,
    /// The nodes that each name stands for.
    names: BTreeMap<String, Vec<usize>>,
    members: Vec<Member>,
    queue: BTreeMap<(Time, u64), (usize, Arrived)>,
    scheduled: u64,
    /// Nodes that accept nobody.
    refusing: BTreeSet<usize>,
}

impl Street {
    /// Nodes that start at these times with one list of seeds.
    fn new(starts: &[Time], seeds: &[usize]) -> Self {
        let member = |starts_at: &Time| Member { starts_at: *starts_at, joining: None, joined: None, said: Vec::new() };
        let mut street = Self {
            seeds: seeds.iter().map(|number| seed(*number)).collect(),
            names: (0..starts.len()).map(|number| (seed(number), vec![number])).collect(),
            members: starts.iter().map(member).collect(),
            queue: BTreeMap::new(),
            scheduled: 0,
            refusing: BTreeSet::new(),
        };
        for (number, starts_at) in starts.iter().enumerate() {
            street.schedule(*starts_at, number, None);
        }
        street
    }

    fn schedule(&mut self, at: Time, number: usize, arrived: Arrived) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), (number, arrived));
    }

    fn stranger(&self, number: usize) -> Stranger {
        let (node, seeds) = (id(number), self.seeds.clone());
        Stranger { node, address: address(number), seeds, tokens: Vec::new(), new_mesh: MeshId([number as u8; 16]) }
    }

    /// Runs until then, or until every node that starts by then has its mesh.
    fn run(&mut self, until: Time) {
        while let Some(((time, _), (number, arrived))) = self.queue.pop_first() {
            if time > until {
                return;
            }
            self.step(time, number, arrived);
        }
    }

    fn step(&mut self, time: Time, number: usize, arrived: Arrived) {
        if self.members[number].joined.is_some() {
            return;
        }
        let stranger = self.stranger(number);
        let joining = self.members[number].joining.get_or_insert_with(|| Joining::new(stranger, now(time)));
        let Stepped { commands, wake_at, is_done } = joining.step(now(time), arrived);
        let joined = joining.joined();
        assert_eq!(joined.is_some(), is_done);
        self.members[number].joined = joined;
        for command in commands {
            match command {
                Command::Resolve { call, seed } => {
                    let known = self.names.get(&seed).map(|nodes| nodes.iter().map(|node| address(*node)).collect());
                    let resolved = known.ok_or_else(|| "no such name".to_owned());
                    self.schedule(time + DELAY, number, Some((call, Arrival::Resolved(resolved))));
                }
                Command::Ask { call, address: whom, request, until } => {
                    let answered = self.answer(time + DELAY, number, whom, request);
                    let at = if answered.is_some() { time + DELAY * 2 } else { until };
                    let silent = || Err(RpcError::new(ErrorCode::Timeout, "no reply within its time"));
                    self.schedule(at, number, Some((call, Arrival::Answered(answered.unwrap_or_else(silent)))));
                }
                Command::Say(notice) => self.members[number].said.push(notice),
            }
        }
        if wake_at != Time::NEVER && !is_done {
            self.schedule(wake_at, number, None);
        }
    }

    /// What a node answers; nothing where it is not there.
    fn answer(&self, time: Time, from: usize, whom: SocketAddr, request: Join) -> Option<Result<JoinReply, RpcError>> {
        let asked = (0..self.members.len()).find(|number| address(*number) == whom)?;
        if self.refusing.contains(&asked) {
            let refused = RpcError::new(ErrorCode::Connection, "its certificate is of another authority");
            return Some(Err(refused.with_retry(Retry::No)));
        }
        if self.members[asked].starts_at > time {
            return None;
        }
        let Some(joined) = &self.members[asked].joined else {
            return Some(Err(RpcError::new(ErrorCode::NotReady, "it is starting and not in its mesh yet")));
        };
        // Which tokens suit a ring best is not looked at here.
        let tokens = if request.tokens.is_empty() { vec![from as u64] } else { request.tokens };
        let members = BTreeMap::from([(id(asked), whom.to_string())]);
        Some(Ok(JoinReply { mesh_id: joined.mesh, tokens, members, catalog: Vec::new() }))
    }

    fn meshes(&self) -> BTreeSet<[u8; 16]> {
        self.members.iter().filter_map(|member| Some(member.joined.as_ref()?.mesh.0)).collect()
    }

    fn is_one_mesh(&self) -> bool {
        self.members.iter().all(|member| member.joined.is_some()) && self.meshes().len() == 1
    }
}

#[test]
fn identical_nodes_in_any_order_make_one_mesh() {
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..200 {
        let count = random.usize(1..8);
        let starts: Vec<Time> = (0..count).map(|_| at(random.u64(..20_000))).collect();
        let mut seeds: Vec<usize> = (0..count).collect();
        random.shuffle(&mut seeds);
        seeds.truncate(random.usize(1..=count));
        let mut street = Street::new(&starts, &seeds);
        street.run(Time::default() + PATIENCE);
        assert!(street.is_one_mesh(), "round {round}: {starts:?}, seeds {seeds:?}: {:?}", street.meshes());
        let first = street.members[seeds[0]].joined.as_ref().unwrap();
        assert_eq!(first.seed, None, "the first seed started it");
    }
}

/// Named after what went wrong: a name that stands for all nodes was each node's own, and each started a mesh.
#[test]
fn of_the_nodes_that_the_first_seed_stands_for_one_starts_the_mesh() {
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..50 {
        let starts: Vec<Time> = (0..3).map(|_| at(random.u64(..8_000))).collect();
        let mut street = Street::new(&starts, &[]);
        street.seeds = vec!["mesh.example:7450".to_owned()];
        let mut nodes = vec![0, 1, 2];
        random.shuffle(&mut nodes);
        street.names.insert(street.seeds[0].clone(), nodes);
        street.run(Time::default() + PATIENCE);
        assert!(street.is_one_mesh(), "{starts:?}: {:?}", street.meshes());
    }
}

#[test]
fn only_addresses_of_the_own_family_are_ahead_of_a_node() {
    let four = SocketAddr::from(([127, 0, 0, 1], 7450));
    let six: SocketAddr = "[::1]:7450".parse().unwrap();
    assert!(is_first_of(&[six, four], four) && is_first_of(&[four, six], six), "a name with one address of each");
    assert!(!is_first_of(&[four], six) && !is_first_of(&[], four));
    assert!(!is_first_of(&[SocketAddr::from(([127, 0, 0, 1], 7449)), four], four));
}

#[test]
fn without_seeds_a_node_starts_a_mesh_at_once_and_keeps_its_tokens() {
    let mut street = Street::new(&[at(7)], &[]);
    let stranger = Stranger { tokens: vec![3, 9], ..street.stranger(0) };
    street.members[0].joining = Some(Joining::new(stranger, now(at(7))));
    street.run(at(7));
    let joined = street.members[0].joined.clone().unwrap();
    assert_eq!((joined.mesh, joined.tokens), (MeshId([0; 16]), vec![3, 9]));
}

#[test]
fn a_refusal_is_told_once_and_is_no_missing_mesh() {
    let mut street = Street::new(&[at(0), at(0), at(0)], &[1]);
    street.refusing.insert(1);
    street.run(at(30_000));
    for number in [0, 2] {
        assert_eq!(street.members[number].said, [Notice::Refused { seed: seed(1) }]);
    }
    // Mended: they join at the next round.
    street.refusing.clear();
    street.run(at(31_000));
    assert!(street.is_one_mesh());
}

#[test]
fn a_node_that_finds_no_mesh_says_so_every_few_seconds_and_asks_on() {
    let mut street = Street::new(&[at(0), at(60_000)], &[1, 2]);
    street.run(at(26_000));
    let said = &street.members[0].said;
    assert!((4..=6).contains(&said.len()), "{said:?}");
    let Notice::NoMesh { reasons } = &said[0] else { panic!("{said:?}") };
    assert_eq!(reasons.len(), 2, "the silent seed and the unknown name: {reasons:?}");
    assert!(reasons[1].contains("no such name"), "{reasons:?}");
    street.run(at(70_000));
    assert!(street.is_one_mesh(), "the first seed came at last");
}

#[test]
fn a_seed_that_does_not_answer_keeps_nobody_from_the_others() {
    // The first seed is not there, and the second has a mesh, since it was started without seeds.
    let mut street = Street::new(&[at(1_000), at(0), Time::NEVER], &[2, 1]);
    let stranger = Stranger { seeds: Vec::new(), ..street.stranger(1) };
    street.members[1].joining = Some(Joining::new(stranger, now(at(0))));
    street.run(at(1_000) + ASK_TIMEOUT + DELAY * 10);
    let joined = street.members[0].joined.clone().unwrap();
    assert_eq!((joined.mesh, joined.seed), (MeshId([1; 16]), Some(seed(1))));
}

#[test]
fn an_answer_that_comes_too_late_is_asked_for_again() {
    let mut street = Street::new(&[at(0), at(0)], &[1]);
    let stranger = street.stranger(0);
    let mut joining = Joining::new(stranger, now(at(0)));
    let first = joining.step(now(at(0)), None).commands;
    let [Command::Resolve { call, .. }] = first[..] else { panic!("{first:?}") };
    let asked = joining.step(now(at(1)), Some((call, Arrival::Resolved(Ok(vec![address(1)]))))).commands;
    let [Command::Ask { call: late, until, .. }] = asked[..] else { panic!("{asked:?}") };
    let waiting = joining.step(now(until), None);
    assert!(!waiting.is_done && waiting.wake_at == until + ASK_EVERY);
    street.members[1].joined = Some(started(street.stranger(1)));
    let reply = street.answer(until, 0, address(1), Join { tokens: Vec::new() }).unwrap();
    assert!(!joining.step(now(until), Some((late, Arrival::Answered(reply.clone())))).is_done);
    let again = joining.step(now(until + ASK_EVERY), None).commands;
    let [Command::Resolve { call, .. }] = again[..] else { panic!("{again:?}") };
    let asked = joining.step(now(until + ASK_EVERY), Some((call, Arrival::Resolved(Ok(vec![address(1)]))))).commands;
    let [Command::Ask { call, .. }] = asked[..] else { panic!("{asked:?}") };
    assert!(joining.step(now(until + ASK_EVERY), Some((call, Arrival::Answered(reply)))).is_done);
    assert_eq!(joining.joined().unwrap().mesh, MeshId([1; 16]));
}
