//! One collection: what may be asked of it.

use vecino_mesh::client::Effect;
use vecino_model::{CollectionSchema, Level, Metric, PointId, RawPoint, Vector};
use vecino_net::error::ErrorCode;
use vecino_net::message::{
    CollectionInfo, Delete, DescribeCollection, DropCollection, Dropped, Put, Query, RingInfo, RingReply,
    SnapshotReport, TakeSnapshot,
};

use crate::bulk::BulkOptions;
use crate::error::ClientError;
use crate::request::{
    CreateRequest, DeleteRequest, GetOneRequest, GetRequest, PutRequest, ScanRequest, SearchRequest, WriteRequest,
};
use crate::schema::schema;
use crate::session::Session;

/// A collection by its name, whether it exists or not; made by [`Client::collection`](crate::Client::collection). Cheap to
/// clone.
///
/// Requests have settings with defaults and are awaited directly:
///
/// ```no_run
/// # async fn example(client: vecino_client::Client) -> Result<(), vecino_client::ClientError> {
/// use vecino_client::{Level, Metric, payload, point};
///
/// let films = client.collection("films");
/// films.create(3, Metric::Cosine).if_absent().await?;
/// films.put([point(100, [0.1, 0.2, 0.3], payload! { "title": "Río", "year": 1991 })]).level(Level::All).await?;
/// let found = films.search([0.1, 0.2, 0.2]).k(3).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Collection {
    session: Session,
    name: String,
}

impl Collection {
    pub(crate) fn new(session: Session, name: String) -> Self {
        Self { session, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    // --------------------------------------------------------------------------------------------- the collection

    /// Creates it on every node, with one, unnamed vector field of this dimension. More fields, replicas and the like are
    /// set on the request.
    pub fn create(&self, dim: u32, metric: Metric) -> CreateRequest {
        self.create_from(schema(dim, metric))
    }

    /// Creates it on every node with a whole schema, for example a [`named_schema`](crate::named_schema).
    pub fn create_from(&self, schema: CollectionSchema) -> CreateRequest {
        CreateRequest::new(self.session.clone(), self.name.clone(), schema)
    }

    /// Whether it exists.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn exists(&self) -> Result<bool, ClientError> {
        match self.describe().await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is known of it: its id, its schema, how many points it has and on which nodes.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where it does not exist.
    pub async fn describe(&self) -> Result<CollectionInfo, ClientError> {
        self.session.call(&DescribeCollection { name: self.name.clone() }, Effect::Read).await
    }

    /// Drops it and everything in it.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where it does not exist.
    pub async fn drop_collection(&self) -> Result<Dropped, ClientError> {
        self.session.call(&DropCollection { name: self.name.clone() }, Effect::SingleWrite).await
    }

    /// Who owns which part of it.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where it does not exist.
    pub async fn ring(&self) -> Result<RingReply, ClientError> {
        self.session.call(&RingInfo { collection: Some(self.name.clone()) }, Effect::Read).await
    }

    /// Takes a snapshot of it on every live node.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where it does not exist. What failed on one node is in that node's report.
    pub async fn snapshot(&self) -> Result<Vec<SnapshotReport>, ClientError> {
        self.session.call(&TakeSnapshot { collection: Some(self.name.clone()) }, Effect::RepeatableWrite).await
    }

    // ------------------------------------------------------------------------------------------------- its points

    /// Writes points, at most [`BATCH_POINTS_MAX`](crate::limits::BATCH_POINTS_MAX); for more there is
    /// [`bulk`](Self::bulk). Awaiting it is an error unless every point was written.
    pub fn put<P: Into<RawPoint>>(&self, points: impl IntoIterator<Item = P>) -> PutRequest {
        let points = points.into_iter().map(Into::into).collect();
        let put = Put { collection: self.name.clone(), points, level: Level::default(), stamps: Vec::new() };
        WriteRequest::new(self.session.clone(), put)
    }

    /// Deletes points; one that is absent counts as deleted. Awaiting it is an error unless every point was deleted.
    pub fn delete<I: Into<PointId>>(&self, ids: impl IntoIterator<Item = I>) -> DeleteRequest {
        let ids = ids.into_iter().map(Into::into).collect();
        let delete = Delete { collection: self.name.clone(), ids, level: Level::default(), stamps: Vec::new() };
        WriteRequest::new(self.session.clone(), delete)
    }

    /// Reads points; the answer has an entry for each id, in their order.
    pub fn get<I: Into<PointId>>(&self, ids: impl IntoIterator<Item = I>) -> GetRequest {
        GetRequest::new(self.session.clone(), self.name.clone(), ids.into_iter().map(Into::into).collect())
    }

    /// Reads one point.
    pub fn get_one(&self, id: impl Into<PointId>) -> GetOneRequest {
        GetOneRequest::new(self.session.clone(), self.name.clone(), id.into())
    }

    /// Finds the points that are most like a vector.
    pub fn search(&self, vector: impl Into<Vector>) -> SearchRequest {
        SearchRequest::new(self.session.clone(), self.name.clone(), Query::Vector(vector.into()))
    }

    /// Finds the points that are most like a stored point, itself left out.
    pub fn search_like(&self, id: impl Into<PointId>) -> SearchRequest {
        SearchRequest::new(self.session.clone(), self.name.clone(), Query::Id(id.into()))
    }

    /// Reads every point, as a stream.
    pub fn scan(&self) -> ScanRequest {
        ScanRequest::new(self.session.clone(), self.name.clone())
    }

    /// Loads many points, in batches of which several are on their way at a time.
    pub fn bulk(&self) -> BulkOptions<'static> {
        BulkOptions::new(self.session.clone(), self.name.clone())
    }
}
