//! Every limit on what a client may send, in one place: the command line, the checks of nodes and the documents take them
//! from here. `vecino-index`, which knows nothing of ours, has some of its own; a test in `vecino-engine` holds them to these.

/// Largest dimension of a vector field.
pub const DIM_MAX: u32 = 16_384;
/// Longest string id, in bytes.
pub const POINT_ID_BYTES_MAX: usize = 512;
/// Largest payload of one point, in bytes of MessagePack.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of lists and maps in a payload.
pub const PAYLOAD_DEPTH_MAX: usize = 16;
/// Longest collection name and field name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most vector fields in one collection.
pub const FIELDS_MAX: usize = 16;
/// Least links of a node in the graph, the `m` of HNSW.
pub const M_MIN: u32 = 2;
/// Most links of a node in the graph, the `m` of HNSW.
pub const M_MAX: u32 = 128;
/// Least candidates while a node is linked, the `efConstruction` of HNSW. With fewer the graph falls apart.
pub const EF_CONSTRUCTION_MIN: u32 = 8;
/// Most candidates while a node is linked, the `efConstruction` of HNSW.
pub const EF_CONSTRUCTION_MAX: u32 = 10_000;
/// Most replicas of a point.
pub const REPLICATION_FACTOR_MAX: u32 = 64;
/// Shortest time between flushes, in milliseconds.
pub const FSYNC_MS_MIN: u32 = 1;
/// Longest time between flushes, in milliseconds.
pub const FSYNC_MS_MAX: u32 = 60_000;
/// Most points in one put, get or delete.
pub const BATCH_POINTS_MAX: usize = 10_000;
/// Most hits of one search.
pub const K_MAX: u32 = 10_000;
/// Largest `ef` of one search.
pub const EF_MAX: u32 = 100_000;
/// Most collections in one mesh.
pub const COLLECTIONS_MAX: usize = 10_000;
/// Largest body of one frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest vector, by its Euclidean norm: the square of a distance between two of them is still a finite f32.
pub const NORM_MAX: f64 = 1e18;
/// Shortest vector under cosine, by its Euclidean norm.
pub const COSINE_NORM_MIN: f64 = 1e-15;
