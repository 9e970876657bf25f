//! What opening would say to what lies on disk.

use vecino_model::{CollectionId, CollectionSchema, Record, RecordValue};
use vecino_storage::Snapshot;

use crate::fields::FieldIndexes;
use crate::persist::errors::OpenError;
use crate::persist::loading::load;
use crate::progress::Progress;
use crate::record;
use crate::resources::Resources;

/// What opening would say to what lies on disk, for a look at it while no node runs.
pub struct Inspector<'a> {
    id: CollectionId,
    schema: &'a CollectionSchema,
    /// Without a vector in them: they know which would fit.
    fields: FieldIndexes,
}

impl<'a> Inspector<'a> {
    /// An inspector of one collection. Fails where the schema asks for what cannot be.
    pub fn new(id: CollectionId, schema: &'a CollectionSchema) -> Result<Self, OpenError> {
        Ok(Self { id, schema, fields: FieldIndexes::new(id, schema)? })
    }

    /// Reads a snapshot in full, as opening does; gives the number of live points, or says why it cannot be used.
    pub fn points(&self, snapshot: &Snapshot) -> Result<u64, String> {
        let account = Resources::unlimited().share("").account;
        let (tables, _) =
            load(snapshot, self.id, self.schema, &account, &Progress::default()).map_err(|error| error.to_string())?;
        Ok(tables.live() as u64)
    }

    /// Whether a record of the log decodes and fits the schema.
    pub fn check_record(&self, bytes: &[u8]) -> Result<(), String> {
        let Record { id: _, version: _, value } = record::decode(bytes).map_err(|error| error.to_string())?;
        let vectors = value.map(|RecordValue { vectors, payload: _ }| vectors).unwrap_or_default();
        self.fields.check(&vectors).map_err(|error| error.to_string())
    }
}
