//! The command line: every command, its arguments, and what their values may be. Nothing here acts.
//!
//! A value that can be judged without a node (a vector with a NaN, a payload that is no object) is refused here, as
//! usage, with exit code 2.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand};
use vecino_model::limits::{
    BATCH_POINTS_MAX, DIM_MAX, EF_CONSTRUCTION_MAX, EF_CONSTRUCTION_MIN, EF_MAX, K_MAX, M_MAX, M_MIN,
};
use vecino_model::{Fsync, Level, Metric, Payload, PointId, Profile, Vector};

use super::certs::CertsCommand;
use super::values::{
    NamedField, parse_duration, parse_field, parse_finite, parse_fsync, parse_id, parse_payload, parse_replicas,
    parse_seconds, parse_text_id, parse_vector,
};
use crate::backup::BackupName;
use vecino_engine::memory::MemoryLimit;
use vecino_node::config::{DATA_DEFAULT, Layer, Listen, LogFormat};

/// A vector database without a centre: identical nodes, one binary, QUIC and gossip.
#[derive(Debug, Parser)]
#[command(
    name = "vecino",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Print JSON instead of tables; errors become JSON on stderr
    #[arg(long, global = true, display_order = 100)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Node(NodeArgs),
    /// Start three nodes on loopback, load real data, kill one, and show what happens
    Demo(DemoArgs),
    /// Make an authority, issue and show certificates
    Certs {
        /// What to do.
        #[command(subcommand)]
        command: CertsCommand,
    },
    /// Look for damage in the folder of a node that does not run, and repair what loses nothing
    Doctor(DoctorArgs),
    /// Print a script that completes commands in a shell
    #[command(hide = true)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// What is asked of a running mesh.
    #[command(flatten)]
    Client(ClientCommand),
}

/// What is asked of a running mesh.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create, list, describe and drop collections
    Collection(CollectionArgs),
    /// Write one point
    Put(PutArgs),
    /// Read one point; exit code 1 if it is absent
    Get(GetArgs),
    /// Delete points; deleting what is absent succeeds
    Delete(DeleteArgs),
    /// Find the points nearest to a vector or to a stored point
    Search(SearchArgs),
    /// Load a file of vectors (.fvecs, .bvecs, .npy, .jsonl)
    Import(ImportArgs),
    /// Write a collection to a .jsonl file or to standard output
    Export(ExportArgs),
    /// Measure recall, throughput and latency of a running mesh
    Bench(BenchArgs),
    /// Show the nodes of the mesh
    Status(StatusArgs),
    /// Show who owns which range
    Ring(RingArgs),
    /// Take a snapshot on every live node
    Snapshot(SnapshotArgs),
    /// Make and list backups in a folder or an object store
    Backup {
        /// What to do.
        #[command(subcommand)]
        command: BackupCommand,
    },
    /// Bring collections back from a backup, onto this mesh or any other
    Restore(RestoreArgs),
}

// ------------------------------------------------------------------------------------------------- shared

/// How a command reaches the mesh.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// Address of a node; may be repeated
    #[arg(
        long,
        value_name = "ADDR",
        env = "VECINO_CONNECT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400",
        global = true
    )]
    pub connect: Vec<String>,
    /// Folder with the client's certificate [default: ./vecino-data/certs/client]
    #[arg(long, value_name = "DIR", env = "VECINO_CERTS", global = true)]
    pub certs: Option<PathBuf>,
    /// How long one request may take, for example 500ms, 10s or 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, global = true)]
    pub timeout: Duration,
}

/// How many replicas an operation waits for.
#[derive(Clone, Copy, Debug, Args)]
pub struct LevelArg {
    /// Replicas to wait for: one, quorum or all
    #[arg(long, value_name = "LEVEL", default_value = "quorum")]
    pub level: Level,
}

/// One point id.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OneId {
    /// Id of the point: 0, or digits that do not begin with 0, are a number of 64 bits; anything else is text
    #[arg(long, value_name = "ID", value_parser = parse_id, allow_negative_numbers = true)]
    id: Option<PointId>,
    /// Id of the point, text even if it is made of digits
    #[arg(long, value_name = "ID", value_parser = parse_text_id)]
    id_text: Option<PointId>,
}

impl OneId {
    /// The id, whichever way it was given.
    pub fn point_id(&self) -> PointId {
        self.id.as_ref().or(self.id_text.as_ref()).cloned().expect("clap requires one of the two")
    }
}

// ------------------------------------------------------------------------------------------------- node and demo

/// `vecino node`. NotOpen values come from `VECINO_*` variables, then from the file, then from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct NodeArgs {
    /// Folder for everything that the node keeps [env: VECINO_DATA] [default: ./vecino-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// UDP address to listen on: IP:PORT, NAME:PORT, or :PORT for loopback [env: VECINO_LISTEN] [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Listen>,
    /// Address at which other nodes reach this one, host:port [env: VECINO_ADVERTISE] [default: the listening address]
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<String>,
    /// Address of a node to join through; may be repeated [env: VECINO_SEEDS, comma separated]
    #[arg(long = "seed", value_name = "ADDR")]
    pub seeds: Vec<String>,
    /// Folder with the node's certificate [env: VECINO_CERTS] [default: made in the data folder]
    #[arg(long, value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// Collections that are open at once; beyond it those that are idle longest are closed [env:
    /// VECINO_OPEN_COLLECTIONS] [default: 256]
    #[arg(long, value_name = "N")]
    pub open_collections: Option<usize>,
    /// TOML or YAML file with the same settings [env: VECINO_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Memory that the node may take, in bytes (512MiB, 8GiB) or percent of what its control group or the machine has;
    /// puts are refused from there on [env: VECINO_MEMORY_LIMIT] [default: 70%]
    #[arg(long, value_name = "LIMIT")]
    pub memory_limit: Option<MemoryLimit>,
    /// How log lines look: text or json [env: VECINO_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "text|json")]
    pub log_format: Option<LogFormat>,
}

impl NodeArgs {
    /// The settings file that is named, and the settings that are given beside it.
    pub fn into_layer(self) -> (Option<PathBuf>, Layer) {
        let Self { data, listen, advertise, seeds, certs, open_collections, config, memory_limit, log_format } = self;
        let seeds = (!seeds.is_empty()).then_some(seeds);
        (config, Layer { data, listen, advertise, seeds, certs, memory_limit, open_collections, log_format })
    }
}

/// `vecino demo`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Leave the three nodes running until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

// ------------------------------------------------------------------------------------------------- collections

/// `vecino collection`.
#[derive(Clone, Debug, Args)]
pub struct CollectionArgs {
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: CollectionCommand,
}

/// What to do with collections.
#[derive(Clone, Debug, Subcommand)]
pub enum CollectionCommand {
    /// Create a collection on every node
    Create(CreateArgs),
    /// List the collections of the mesh
    List,
    /// Show one collection: its schema and what each node holds of it
    Describe {
        /// Name of the collection.
        name: String,
    },
    /// Drop a collection and everything in it
    Drop {
        /// Name of the collection.
        name: String,
    },
}

/// `vecino collection create`.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct CreateArgs {
    /// Name of the collection: letters, digits, `-`, `_` and `.`
    pub name: String,
    /// Number of values in each vector
    #[arg(long, value_name = "D", requires = "metric", required_unless_present = "fields", value_parser = clap::value_parser!(u32).range(1..=i64::from(DIM_MAX)))]
    pub dim: Option<u32>,
    /// How vectors are compared: cosine, euclidean, dot or manhattan
    #[arg(long, requires = "dim")]
    pub metric: Option<Metric>,
    /// A vector field with a name, for example title:384:cosine; may be repeated, instead of --dim or beside it
    #[arg(long = "field", value_name = "NAME:DIM:METRIC", value_parser = parse_field)]
    pub fields: Vec<NamedField>,
    /// Nodes that keep each point [default: 3, or every node of a smaller mesh]
    #[arg(long, value_name = "N", value_parser = parse_replicas)]
    pub replicas: Option<u32>,
    /// HNSW M: links of a point on the upper layers of the graph
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(i64::from(M_MIN)..=i64::from(M_MAX)))]
    pub m: u32,
    /// HNSW efConstruction: candidates kept while a point is linked
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(i64::from(EF_CONSTRUCTION_MIN)..=i64::from(EF_CONSTRUCTION_MAX)))]
    pub ef_construction: u32,
    /// What the index keeps beside the vectors: fast (codes of links and vectors), compact (codes of vectors) or plain (none)
    #[arg(long, value_name = "fast|compact|plain", default_value_t = Profile::Fast)]
    pub profile: Profile,
    /// When a node flushes writes to its disk: always (before each acknowledgement), never, or at this interval in
    /// milliseconds
    #[arg(long, value_name = "always|never|MS", default_value = "always", value_parser = parse_fsync)]
    pub fsync: Fsync,
}

// ------------------------------------------------------------------------------------------------- points

/// `vecino put`.
#[derive(Clone, Debug, Args)]
pub struct PutArgs {
    /// Name of the collection
    pub collection: String,
    /// Which point.
    #[command(flatten)]
    pub id: OneId,
    /// The vector: numbers separated by commas; may be repeated, once for each --field
    #[arg(long = "vector", value_name = "A,B,C", required = true, value_parser = parse_vector, allow_hyphen_values = true)]
    pub vectors: Vec<Vector>,
    /// Vector field of the --vector in the same place; without it, the collection's unnamed one
    #[arg(long = "field", value_name = "NAME")]
    pub fields: Vec<String>,
    /// What the point carries: a JSON object
    #[arg(long, value_name = "JSON", value_parser = parse_payload)]
    pub payload: Option<Payload>,
    /// How many replicas to wait for.
    #[command(flatten)]
    pub level: LevelArg,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino get`.
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// Name of the collection
    pub collection: String,
    /// Which point.
    #[command(flatten)]
    pub id: OneId,
    /// How many replicas to wait for.
    #[command(flatten)]
    pub level: LevelArg,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino delete`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("which").args(["id", "id_text"]).required(true).multiple(true))]
pub struct DeleteArgs {
    /// Name of the collection
    pub collection: String,
    /// Id of a point, read as by `vecino put`; may be repeated
    #[arg(long, value_name = "ID", value_parser = parse_id, allow_negative_numbers = true)]
    pub id: Vec<PointId>,
    /// Id of a point, text even if it is made of digits; may be repeated
    #[arg(long, value_name = "ID", value_parser = parse_text_id)]
    pub id_text: Vec<PointId>,
    /// How many replicas to wait for.
    #[command(flatten)]
    pub level: LevelArg,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino search`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("query").args(["vector", "vector_file", "id", "id_text"]).required(true))]
pub struct SearchArgs {
    /// Name of the collection
    pub collection: String,
    /// The query: numbers separated by commas
    #[arg(long, value_name = "A,B,C", value_parser = parse_vector, allow_hyphen_values = true)]
    pub vector: Option<Vector>,
    /// The query is a row of this file (.fvecs, .bvecs, .npy, .jsonl)
    #[arg(long, value_name = "FILE")]
    pub vector_file: Option<PathBuf>,
    /// Which row of --vector-file, from 0
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["vector", "id", "id_text"])]
    pub row: u64,
    /// Find points like the stored one of this id, read as by `vecino put`
    #[arg(long, value_name = "ID", value_parser = parse_id, allow_negative_numbers = true)]
    pub id: Option<PointId>,
    /// Find points like the stored one of this id, text even if it is made of digits
    #[arg(long, value_name = "ID", value_parser = parse_text_id)]
    pub id_text: Option<PointId>,
    /// How many points to find
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(K_MAX)))]
    pub k: u32,
    /// Candidates that the graph walk looks at, on average: more finds better, slower
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(EF_MAX)))]
    pub ef: Option<u32>,
    /// Only points at least this good: a least similarity (cosine, dot) or a greatest distance (euclidean, manhattan)
    #[arg(long, value_name = "SCORE", value_parser = parse_finite, allow_hyphen_values = true)]
    pub threshold: Option<f32>,
    /// Vector field; without it, the collection's unnamed one
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub field: String,
    /// Compare with every point instead of walking the graph
    #[arg(long)]
    pub exact: bool,
    /// Answer with what the live nodes have when a range has no live replica
    #[arg(long)]
    pub allow_partial: bool,
    /// Leave the payloads out
    #[arg(long)]
    pub no_payload: bool,
    /// Also return the vectors
    #[arg(long)]
    pub with_vector: bool,
    /// How many replicas to ask.
    #[command(flatten)]
    pub level: LevelArg,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

// ------------------------------------------------------------------------------------------------- doctor

/// `vecino doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Folder of the node
    #[arg(long, value_name = "DIR", env = "VECINO_DATA", default_value = DATA_DEFAULT)]
    pub data: PathBuf,
    /// Do what loses nothing: cut an unfinished write, remove leftovers, and snapshots that others stand in for
    #[arg(long)]
    pub repair: bool,
}

// ------------------------------------------------------------------------------------------------- files

/// `vecino import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// Name of the collection
    pub collection: String,
    /// File of vectors: .fvecs, .bvecs, .npy (f32, f16, u8) or .jsonl
    pub file: PathBuf,
    /// Points in one batch
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=BATCH_POINTS_MAX as i64))]
    pub batch: u32,
    /// Batches under way at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub in_flight: u32,
    /// Read no more than this many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Added to row numbers to make ids, for files that have none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub id_offset: u64,
    /// Keep the acknowledged ids in this file, and skip those that are in it
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// How many seconds of wall-clock time to wait for a mesh that does not answer, before giving up
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub patience: u64,
    /// Start sending before the whole file has been read once and found sound
    #[arg(long)]
    pub no_check: bool,
    /// How many replicas to wait for.
    #[command(flatten)]
    pub level: LevelArg,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Name of the collection
    pub collection: String,
    /// File to write, complete or not at all; without it, standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How many replicas to ask.
    #[command(flatten)]
    pub level: LevelArg,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Name of the collection
    pub collection: String,
    /// File of queries: .fvecs, .bvecs, .npy or .jsonl
    #[arg(long, value_name = "FILE")]
    pub queries: PathBuf,
    /// Row numbers of the true nearest points of each query, nearest first: .ivecs or .npy (i32, i64, u32)
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// Hits asked for, and the k of recall@k
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(K_MAX)))]
    pub k: u32,
    /// Candidates that the graph walk looks at, on average [default: the node's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(EF_MAX)))]
    pub ef: Option<u32>,
    /// Searches under way at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub clients: u32,
    /// Go round the queries for this long [default: each query once]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub seconds: Option<f64>,
    /// Compare with every point instead of walking the graph
    #[arg(long)]
    pub exact: bool,
    /// Added to the row numbers of --truth to make ids, as at import
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub id_offset: u64,
    /// How many replicas to ask.
    #[command(flatten)]
    pub level: LevelArg,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

// ------------------------------------------------------------------------------------------------- mesh

/// `vecino status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino ring`.
#[derive(Clone, Debug, Args)]
pub struct RingArgs {
    /// Show the ring of this collection instead of the ring of all nodes
    pub collection: Option<String>,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino snapshot`.
#[derive(Clone, Debug, Args)]
pub struct SnapshotArgs {
    /// Only this collection
    pub collection: Option<String>,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

// ------------------------------------------------------------------------------------------------- backups

/// What to do with backups.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Back up the whole mesh; only what changed since the last backup travels
    Create(BackupCreateArgs),
    /// List the backups of a place; no node is asked
    List(BackupListArgs),
}

/// `vecino backup create`.
#[derive(Clone, Debug, Args)]
pub struct BackupCreateArgs {
    /// Where to: a folder, file:///FOLDER or s3://BUCKET/PREFIX (with AWS_ACCESS_KEY_ID and the like)
    pub url: String,
    /// Only this collection; may be repeated
    #[arg(long = "collection", value_name = "NAME")]
    pub collections: Vec<String>,
    /// Replicas of each range to ask: one is enough for a backup, but may miss the newest writes
    #[arg(long, value_name = "LEVEL", default_value = "quorum")]
    pub level: Level,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}

/// `vecino backup list`.
#[derive(Clone, Debug, Args)]
pub struct BackupListArgs {
    /// Where: a folder, file:///FOLDER or s3://BUCKET/PREFIX
    pub url: String,
}

/// `vecino restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// Where from: a folder, file:///FOLDER or s3://BUCKET/PREFIX
    pub url: String,
    /// Which backup, as `vecino backup list` names it [default: the newest]
    #[arg(long, value_name = "TIME")]
    pub backup: Option<BackupName>,
    /// Only this collection
    #[arg(long, value_name = "NAME")]
    pub collection: Option<String>,
    /// Name for the restored collection, where it is to have another one
    #[arg(long = "as", value_name = "NAME")]
    pub rename: Option<String>,
    /// Put this before the name of each restored collection
    #[arg(long, value_name = "PREFIX", default_value = "", conflicts_with = "rename")]
    pub prefix: String,
    /// Leave collections that exist as they are, and restore the others
    #[arg(long)]
    pub skip_existing: bool,
    /// How many seconds to wait for a mesh that does not take points, before giving up
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub patience: u64,
    /// How to reach the mesh.
    #[command(flatten)]
    pub connection: ConnectArgs,
}
