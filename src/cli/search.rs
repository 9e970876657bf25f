//! `vecino search`.

use serde::Serialize;
use vecino_client::{Client, Fields, Hit, PointId, SearchReply, SearchRequest, Vector};
use vecino_model::DEFAULT_FIELD;

use super::args::SearchArgs;
use super::connection::connect_running;
use super::failure::Failure;
use super::output::{Style, Table, id_text, json, percent, print, printable, vector_text};
use crate::files::VectorFile;
use crate::files::json::{PayloadRef, VectorsRef};

/// Carries out the command.
pub async fn run(args: SearchArgs, style: Style) -> Result<(), Failure> {
    let client = connect_running(&args.connection).await?;
    let reply = request(&client, &args)?.await?;
    client.close().await;
    print(&render(&reply, style))
}

fn request(client: &Client, args: &SearchArgs) -> Result<SearchRequest, Failure> {
    let collection = client.collection(&args.collection);
    let request = if let Some(vector) = &args.vector {
        collection.search(vector.clone())
    } else if args.vector_file.is_some() {
        collection.search(vector_of_file(args)?)
    } else {
        collection.search_like(args.id.as_ref().or(args.id_text.as_ref()).expect("clap requires one of the four"))
    };
    Ok(request
        .k(args.k)
        .field(args.field.clone())
        .level(args.level.level)
        .exact(args.exact)
        .allow_partial(args.allow_partial)
        .with_payload(!args.no_payload)
        .with_vectors(args.with_vector)
        .ef(args.ef)
        .threshold(args.threshold))
}

fn vector_of_file(args: &SearchArgs) -> Result<Vector, Failure> {
    let path = args.vector_file.as_deref().expect("the caller has seen it");
    let mut rows = 0;
    for row in VectorFile::open(path)? {
        let mut row = row?;
        if row.number == args.row {
            // A file without field names has its vectors under the default one, whichever field they are for.
            let vector = row.vectors.remove(&args.field).or_else(|| row.vectors.remove(DEFAULT_FIELD));
            let missing = || Failure::new("file", format!("{}: row has no vector {:?}", path.display(), args.field));
            return vector.ok_or_else(missing);
        }
        rows += 1;
    }
    Err(Failure::new("file", format!("{}: row {} was asked for, there are {rows}", path.display(), args.row)))
}

/// A reply as text.
pub fn render(reply: &SearchReply, style: Style) -> String {
    let SearchReply { hits, coverage, metric, .. } = reply;
    if style == Style::Json {
        return json(&ReplyJson { hits: hits.iter().map(HitJson::from).collect(), coverage: *coverage });
    }
    let mut text = if hits.is_empty() {
        "nothing found".to_owned()
    } else {
        let score = if metric.higher_is_better() { "#score" } else { "#distance" };
        let with_vectors = hits.iter().any(|hit| !hit.vectors.is_empty());
        let headings = ["#", "id", score].into_iter().chain(with_vectors.then_some("vector")).chain(["payload"]);
        let mut table = Table::new(&headings.collect::<Vec<_>>()).flexible("payload");
        for (rank, hit) in hits.iter().enumerate() {
            let payload = hit.payload.as_ref().filter(|payload| !payload.is_empty());
            let payload = payload.map(|payload| json(&PayloadRef(payload))).unwrap_or_default();
            let cells = [(rank + 1).to_string(), id_text(&hit.id), format!("{:.6}", hit.score)];
            let cells = cells.into_iter().chain(with_vectors.then(|| vectors_text(&hit.vectors, style)));
            table.row(cells.chain([printable(&payload)]).map(|cell| style.shorten(cell)).collect());
        }
        table.render(style)
    };
    if *coverage < 1.0 {
        text.push_str(&format!(
            "\nonly {} of the ring was searched: the rest has too few live replicas",
            percent(*coverage)
        ));
    }
    text
}

/// Vectors in one cell; fields that have names are told apart by them.
fn vectors_text(vectors: &Fields, style: Style) -> String {
    let field = |(name, vector): (&String, &Vector)| match name.as_str() {
        DEFAULT_FIELD => vector_text(vector, VALUES_SHOWN, style),
        name => format!("{} {}", printable(name), vector_text(vector, VALUES_SHOWN, style)),
    };
    vectors.iter().map(field).collect::<Vec<_>>().join("; ")
}

/// Values of a vector that a table on a terminal shows.
const VALUES_SHOWN: usize = 3;

#[derive(Serialize)]
struct ReplyJson<'a> {
    hits: Vec<HitJson<'a>>,
    coverage: f64,
}

/// Payload and vector are left out where they were not asked for.
#[derive(Serialize)]
struct HitJson<'a> {
    id: &'a PointId,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadRef<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<VectorsRef<'a>>,
}

impl<'a> From<&'a Hit> for HitJson<'a> {
    fn from(hit: &'a Hit) -> Self {
        let Hit { id, score, version: _, payload, vectors } = hit;
        let vector = Some(vectors).filter(|vectors| !vectors.is_empty()).map(VectorsRef);
        Self { id, score: *score, payload: payload.as_ref().map(PayloadRef), vector }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vecino_client::{Level, Metric, Payload, Value, Version};
    use vecino_net::testing::FakeMesh;

    use super::*;
    use crate::cli::args::{Cli, ClientCommand, Command};

    fn reply(metric: Metric, coverage: f64) -> SearchReply {
        let hit = |id: PointId, score, payload| Hit {
            id,
            score,
            version: Version::ZERO,
            payload,
            vectors: Default::default(),
        };
        let payload = Payload::from([("title".into(), Value::Text("Río".into()))]);
        let hits = vec![
            hit(100.into(), 0.1, Some(payload)),
            hit("b".into(), 2.0, Some(Payload::new())),
            hit(3.into(), 3.5, None),
        ];
        SearchReply::new(hits, coverage, metric)
    }

    fn parse(arguments: &[&str]) -> SearchArgs {
        let cli = Cli::try_parse_from([&["vecino", "search", "films"], arguments].concat()).unwrap();
        match cli.command {
            Command::Client(ClientCommand::Search(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn search_answers_in_the_shape_that_scripts_rely_on() {
        assert_eq!(
            render(&reply(Metric::Cosine, 1.0), Style::Json),
            r#"{"hits":[{"id":100,"score":0.1,"payload":{"title":"Río"}},{"id":"b","score":2.0,"payload":{}},{"id":3,"score":3.5}],"coverage":1.0}"#
        );
        let mut with_vector = reply(Metric::Cosine, 0.5);
        with_vector.hits.truncate(1);
        with_vector.hits[0].vectors.insert(String::new(), Vector(vec![0.5]));
        assert_eq!(
            render(&with_vector, Style::Json),
            r#"{"hits":[{"id":100,"score":0.1,"payload":{"title":"Río"},"vector":[0.5]}],"coverage":0.5}"#
        );
    }

    #[test]
    fn people_get_a_table_and_are_told_of_gaps() {
        assert_eq!(
            render(&reply(Metric::Euclidean, 2.0 / 3.0), Style::Plain),
            "   ID   DISTANCE  PAYLOAD\n\
             1  100  0.100000  {\"title\":\"Río\"}\n\
             2  b    2.000000\n\
             3  3    3.500000\n\
             only 66.7 % of the ring was searched: the rest has too few live replicas"
        );
        assert!(render(&reply(Metric::Dot, 1.0), Style::Plain).contains("SCORE"));
        let nothing = SearchReply::new(Vec::new(), 1.0, Metric::Dot);
        assert_eq!(render(&nothing, Style::Terminal), "nothing found");
    }

    #[test]
    fn people_who_ask_for_vectors_see_them() {
        let mut reply = reply(Metric::Cosine, 1.0);
        reply.hits.truncate(2);
        reply.hits[0].vectors.insert(String::new(), Vector(vec![0.5, 1.0, 2.0, 3.0]));
        reply.hits[1].vectors.insert("title".into(), Vector(vec![7.0]));
        assert_eq!(
            render(&reply, Style::Plain),
            "   ID      SCORE  VECTOR     PAYLOAD\n\
             1  100  0.100000  0.5,1,2,3  {\"title\":\"Río\"}\n\
             2  b    2.000000  title 7"
        );
        let drawn = render(&reply, Style::Terminal);
        assert!(drawn.contains("0.5,1,2,… (4 values)"), "{drawn}");
    }

    async fn client(mesh: &FakeMesh) -> Client {
        Client::builder().certs(mesh.client_certs()).build().await.unwrap()
    }

    #[tokio::test]
    async fn every_option_reaches_the_request() {
        let mesh = FakeMesh::new();
        let client = client(&mesh).await;
        let films = client.collection("films");
        let plain = request(&client, &parse(&["--vector", "-0.5,1"])).unwrap();
        assert_eq!(plain, films.search([-0.5, 1.0]));
        let args = "--id 7 --k 3 --ef 64 --threshold -0.25 --field title --level all --exact --allow-partial \
                    --no-payload --with-vector";
        let full = request(&client, &parse(&args.split_whitespace().collect::<Vec<_>>())).unwrap();
        let expected = films
            .search_like(7)
            .k(3)
            .ef(64)
            .threshold(-0.25)
            .field("title")
            .level(Level::All)
            .exact(true)
            .allow_partial(true)
            .with_payload(false)
            .with_vectors(true);
        assert_eq!(full, expected);
        assert_eq!(request(&client, &parse(&["--id-text", "7"])).unwrap(), films.search_like("7"));
    }

    #[tokio::test]
    async fn a_query_may_be_a_row_of_a_file() {
        let mesh = FakeMesh::new();
        let client = client(&mesh).await;
        let path = mesh.dir().join("q.jsonl");
        std::fs::write(&path, "{\"vector\":[1,2]}\n{\"vector\":[3,4]}\n").unwrap();
        let path = path.to_str().unwrap();
        let second = request(&client, &parse(&["--vector-file", path, "--row", "1"])).unwrap();
        assert_eq!(second, client.collection("films").search([3.0, 4.0]));
        let error = request(&client, &parse(&["--vector-file", path, "--row", "2"])).unwrap_err();
        assert_eq!(error.render(false), format!("error: {path}: row 2 was asked for, there are 2"));
    }
}
