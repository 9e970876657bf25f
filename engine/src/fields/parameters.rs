//! What the schema of a vector field means for its index.

use vecino_index::Params;
use vecino_model::{CollectionId, FieldSchema, Metric, Profile};

/// Parameters of the index of the field with this number. The seed differs between collections and fields and never changes.
pub(crate) fn parameters(id: CollectionId, number: usize, field: &FieldSchema) -> Params {
    let FieldSchema { dim, metric, m, ef_construction, profile } = field;
    let mut seed = [0; 8];
    seed.copy_from_slice(&id.0[..8]);
    Params {
        dim: *dim as usize,
        metric: match metric {
            Metric::Cosine => vecino_index::Metric::Cosine,
            Metric::Euclidean => vecino_index::Metric::Euclidean,
            Metric::Dot => vecino_index::Metric::Dot,
            Metric::Manhattan => vecino_index::Metric::Manhattan,
        },
        m: *m as usize,
        ef_construction: *ef_construction as usize,
        profile: match profile {
            Profile::Fast => vecino_index::Profile::Fast,
            Profile::Compact => vecino_index::Profile::Compact,
            Profile::Plain => vecino_index::Profile::Plain,
        },
        seed: u64::from_le_bytes(seed) ^ number as u64,
        flat_live_max: None,
        kernel: None,
    }
}
