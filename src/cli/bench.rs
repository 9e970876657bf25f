//! `vecino bench`: searches a running mesh from several clients at once. What is measured lives in
//! [`measure`](super::measure).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use vecino_client::{Client, CollectionInfo, SearchRequest, Vector};
use vecino_model::DEFAULT_FIELD;

use super::args::BenchArgs;
use super::connection::connect_from;
use super::failure::Failure;
use super::measure::{Measured, recall};
use super::output::{Style, print};
use crate::files::{VectorFile, truth};

/// Carries out the command. Fails when a search failed, after showing the figures.
pub async fn run(args: BenchArgs, style: Style) -> Result<(), Failure> {
    let k = args.k;
    let (measured, elapsed) = bench(args).await?;
    print(&measured.figures(elapsed).render(k, style))?;
    match measured.first_error {
        None => Ok(()),
        Some(first) => Err(Failure::new("bench", format!("{} searches failed; the first: {first}", measured.errors))),
    }
}

/// Searches, and says what was measured in how long a time.
async fn bench(args: BenchArgs) -> Result<(Measured, Duration), Failure> {
    let queries = read_queries(&args)?;
    let truth = read_truth(&args, queries.len())?;
    // One client for each address, each with another node first: the load spreads over the nodes that were named.
    let mut clients = Vec::new();
    for first in 0..args.connection.connect.len().min(args.clients as usize) {
        clients.push(connect_from(&args.connection, first).await?);
    }
    for (number, client) in clients.iter().enumerate() {
        // Opens the connection before the clock runs, and finds a wrong dimension before a thousand searches do.
        let info = client.collection(&args.collection).describe().await?;
        check_dim(&info, &queries)?;
        if number == 0
            && let Some(remark) = truth.as_deref().and_then(|truth| beyond(&info, truth, args.k as usize))
        {
            eprintln!("warning: {remark}");
        }
    }
    let started = Instant::now();
    let deadline = args.seconds.map(|seconds| started + Duration::from_secs_f64(seconds));
    let work = Arc::new(Work { next: AtomicUsize::new(0), deadline, queries, truth, args });
    let mut tasks = JoinSet::new();
    for number in 0..work.args.clients as usize {
        tasks.spawn(measure(clients[number % clients.len()].clone(), Arc::clone(&work)));
    }
    let mut measured = Measured::default();
    while let Some(one) = tasks.join_next().await {
        measured.add(one.map_err(|error| Failure::of("internal", &error))?);
    }
    let elapsed = started.elapsed();
    for client in clients {
        client.close().await;
    }
    Ok((measured, elapsed))
}

/// What the clients share.
struct Work {
    args: BenchArgs,
    queries: Vec<Vector>,
    truth: Option<Vec<Vec<u64>>>,
    next: AtomicUsize,
    deadline: Option<Instant>,
}

impl Work {
    /// Number of the next search. Without a deadline each query is asked once, else they go round until it has passed.
    fn next(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let more = match self.deadline {
            None => number < self.queries.len(),
            Some(deadline) => Instant::now() < deadline,
        };
        more.then_some(number)
    }

    fn request(&self, client: &Client, query: usize) -> SearchRequest {
        let BenchArgs { collection, k, ef, exact, level, .. } = &self.args;
        let request = client.collection(collection).search(self.queries[query].clone());
        request.k(*k).ef(*ef).level(level.level).exact(*exact).with_payload(false)
    }
}

async fn measure(client: Client, work: Arc<Work>) -> Measured {
    let mut measured = Measured::default();
    while let Some(number) = work.next() {
        let query = number % work.queries.len();
        let request = work.request(&client, query);
        let started = Instant::now();
        match request.await {
            Ok(reply) => {
                measured.latencies.record(started.elapsed());
                // Later rounds ask the same again.
                if number < work.queries.len()
                    && let Some(truth) = &work.truth
                {
                    let found = reply.hits.into_iter().map(|hit| hit.id);
                    measured.recall_sum += recall(found, &truth[query], work.args.k as usize, work.args.id_offset);
                    measured.recall_count += 1;
                }
            }
            Err(error) => {
                measured.errors += 1;
                measured.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
    measured
}

fn read_queries(args: &BenchArgs) -> Result<Vec<Vector>, Failure> {
    let path = &args.queries;
    let mut queries = Vec::new();
    for row in VectorFile::open(path)? {
        let mut row = row?;
        let missing =
            || Failure::new("file", format!("{}: row {} has no vector without a name", path.display(), row.number));
        queries.push(row.vectors.remove(DEFAULT_FIELD).ok_or_else(missing)?);
        if queries.len() > QUERIES_MAX {
            return Err(Failure::new("file", format!("{}: more than {QUERIES_MAX} queries", path.display())));
        }
    }
    Ok(queries)
}

/// Reads the exact answers of as many queries, at least `k` for each.
fn read_truth(args: &BenchArgs, queries: usize) -> Result<Option<Vec<Vec<u64>>>, Failure> {
    let Some(path) = &args.truth else { return Ok(None) };
    let truth = truth::read(path, queries as u64)?;
    if truth.len() < queries {
        let message = format!("{}: {} rows for {queries} queries", path.display(), truth.len());
        return Err(Failure::new("file", message));
    }
    if let Some(short) = truth.iter().position(|row| row.len() < args.k as usize) {
        let (found, k) = (truth[short].len(), args.k);
        let message = format!("{}: row {short} has {found} neighbours, --k is {k}", path.display());
        return Err(Failure::new("file", message));
    }
    Ok(Some(truth))
}

/// A remark where exact answers name rows that the collection has not, so that the recall is not what it seems.
fn beyond(info: &CollectionInfo, truth: &[Vec<u64>], k: usize) -> Option<String> {
    let CollectionInfo { name, points, .. } = info;
    let last = truth.iter().flat_map(|row| row.iter().take(k)).max().copied()?;
    (last >= *points).then(|| {
        format!(
            "--truth names row {last}, and collection {name:?} has only {points} points: answers that are not in the \
             collection count as missed, so the recall says little"
        )
    })
}

fn check_dim(info: &CollectionInfo, queries: &[Vector]) -> Result<(), Failure> {
    let name = &info.name;
    let Some(field) = info.schema.fields.get(DEFAULT_FIELD) else {
        return Err(Failure::new("invalid", format!("collection {name:?} has no vector field without a name")));
    };
    match queries.iter().find(|query| query.0.len() != field.dim as usize) {
        None => Ok(()),
        Some(Vector(query)) => {
            let message =
                format!("the queries have dimension {}, collection {name:?} takes {}", query.len(), field.dim);
            Err(Failure::new("invalid", message))
        }
    }
}

/// Most queries, which are held in memory.
const QUERIES_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vecino_client::{ErrorCode, Hit, Metric, PointId, SearchReply, Version};
    use vecino_model::CollectionId;
    use vecino_net::error::RpcError;
    use vecino_net::message::{DescribeCollection, Query, Rpc, Search};

    use super::*;
    use crate::cli::args::{Cli, ClientCommand, Command};
    use vecino_net::testing::{Asked, FakeMesh, reply};

    fn arguments(queries: &str, truth: Option<&[i32]>, width: usize, more: &[&str]) -> (tempfile::TempDir, BenchArgs) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.jsonl");
        std::fs::write(&path, queries).unwrap();
        let mut line: Vec<String> =
            ["vecino", "bench", "films", "--queries", path.to_str().unwrap()].map(str::to_owned).into();
        line.extend(more.iter().map(|argument| (*argument).to_owned()));
        if let Some(truth) = truth {
            let path = dir.path().join("t.ivecs");
            let row = |row: &[i32]| [&[row.len() as i32], row].concat().iter().flat_map(|n| n.to_le_bytes()).collect();
            std::fs::write(&path, truth.chunks(width).map(row).collect::<Vec<Vec<u8>>>().concat()).unwrap();
            line.extend(["--truth".to_owned(), path.to_str().unwrap().to_owned()]);
        }
        match Cli::try_parse_from(line).unwrap().command {
            Command::Client(ClientCommand::Bench(args)) => (dir, args),
            other => panic!("{other:?}"),
        }
    }

    fn info(dim: u32) -> CollectionInfo {
        let schema = vecino_client::schema(dim, Metric::Dot);
        CollectionInfo::new("films".into(), CollectionId([0; 16]), schema, Default::default())
    }

    const TWO: &str = "{\"vector\":[1,2]}\n{\"vector\":[3,4]}\n";

    #[test]
    fn queries_and_truth_must_fit_each_other() {
        let (_dir, args) = arguments(TWO, Some(&[1, 2, 3, 4]), 2, &["--k", "2"]);
        assert_eq!(read_queries(&args).unwrap(), [Vector(vec![1.0, 2.0]), Vector(vec![3.0, 4.0])]);
        assert_eq!(read_truth(&args, 2).unwrap().unwrap(), [[1, 2], [3, 4]]);
        let error = read_truth(&args, 3).unwrap_err().render(false);
        assert!(error.ends_with("t.ivecs: 2 rows for 3 queries"), "{error}");
        let (_dir, args) = arguments(TWO, Some(&[1, 2]), 1, &["--k", "2"]);
        let error = read_truth(&args, 2).unwrap_err().render(false);
        assert!(error.ends_with("t.ivecs: row 0 has 1 neighbours, --k is 2"), "{error}");
        let (_dir, args) = arguments("{\"vector\":{\"title\":[1]}}\n", None, 1, &[]);
        assert_eq!(read_truth(&args, 1).unwrap(), None);
        assert!(read_queries(&args).unwrap_err().render(false).ends_with("row 0 has no vector without a name"));
    }

    #[test]
    fn queries_of_another_dimension_are_refused_before_the_first_search() {
        let info = info(3);
        assert!(check_dim(&info, &[Vector(vec![0.0; 3])]).is_ok());
        let error = check_dim(&info, &[Vector(vec![0.0; 3]), Vector(vec![0.0; 2])]).unwrap_err().render(false);
        assert_eq!(error, "error: the queries have dimension 2, collection \"films\" takes 3");
    }

    #[test]
    fn truth_of_more_rows_than_the_collection_has_is_remarked_on() {
        let collection = |points| {
            let mut info = info(2);
            info.points = points;
            info
        };
        let truth = [vec![5, 99_999], vec![7, 3]];
        assert_eq!(beyond(&collection(100_000), &truth, 2), None);
        assert_eq!(beyond(&collection(8), &truth, 1), None, "only the first k of each row count");
        let remark = beyond(&collection(20_000), &truth, 2).unwrap();
        assert!(remark.contains("row 99999") && remark.contains("\"films\" has only 20000 points"), "{remark}");
    }

    #[tokio::test]
    async fn without_a_deadline_each_query_is_asked_once() {
        let work = |deadline| {
            let (_dir, args) = arguments(TWO, None, 1, &["--ef", "50", "--exact", "--level", "one"]);
            let queries = read_queries(&args).unwrap();
            Work { args, queries, truth: None, next: AtomicUsize::new(0), deadline }
        };
        let once = work(None);
        assert_eq!([once.next(), once.next(), once.next()], [Some(0), Some(1), None]);
        let client = Client::builder().certs(FakeMesh::new().client_certs()).build().await.unwrap();
        let expected = client.collection("films").search([3.0, 4.0]).ef(50).exact(true);
        let expected = expected.level(vecino_client::Level::One).with_payload(false);
        assert_eq!(once.request(&client, 1), expected);
        let round = work(Some(Instant::now() + Duration::from_secs(3600)));
        assert_eq!([round.next(), round.next(), round.next()], [Some(0), Some(1), Some(2)]);
        assert_eq!(work(Some(Instant::now())).next(), None);
    }

    #[tokio::test]
    async fn a_run_counts_recall_latencies_and_errors() {
        let mesh = FakeMesh::new();
        let answer = |asked: Asked| match asked.kind {
            DescribeCollection::KIND => reply::<DescribeCollection>(info(2)),
            _ => {
                let search: Search = asked.read();
                assert_eq!((search.k, search.with_payload), (2, false));
                let first = match search.query {
                    Query::Vector(vector) => vector.0[0] as u64,
                    Query::Id(id) => panic!("{id:?}"),
                };
                if first == 3 {
                    return Err(RpcError::new(ErrorCode::Internal, "the third query is unlucky"));
                }
                // Row numbers `first` and `first + 1`, moved by --id-offset.
                let ids = [first + 100, first + 101].map(PointId::Number);
                let hit =
                    |id| Hit { id, score: 0.0, version: Version::ZERO, payload: None, vectors: Default::default() };
                reply::<Search>(SearchReply::new(ids.map(hit).into(), 1.0, Metric::Dot))
            }
        };
        let (one, two) = (mesh.quick_node(answer), mesh.quick_node(answer));
        let (addresses, certs) = ([one.address.to_string(), two.address.to_string()].join(","), mesh.client_certs());
        let queries = "{\"vector\":[1,0]}\n{\"vector\":[2,0]}\n{\"vector\":[3,0]}\n";
        let more = ["--k", "2", "--clients", "2", "--id-offset", "100", "--connect", &addresses, "--certs"];
        let more = [more.as_slice(), &[certs.to_str().unwrap()]].concat();
        let (_dir, args) = arguments(queries, Some(&[1, 2, 2, 9, 0, 0]), 2, &more);
        let (measured, elapsed) = bench(args).await.unwrap();
        assert_eq!((measured.latencies.count(), measured.errors), (2, 1));
        assert_eq!((measured.recall_sum, measured.recall_count), (1.5, 2), "the first is whole, the second half right");
        assert!(measured.first_error.unwrap().contains("the third query is unlucky"));
        assert!(elapsed > Duration::ZERO);
    }
}
