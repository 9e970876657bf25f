//! A state as bytes: part by part, as it is hashed, and as a whole, for nodes that are too far behind for entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vecino_model::{CollectionId, DiskId, MeshId, NodeId};

use super::change::RestoreId;
use super::hash::{Part, StateHash};
use super::layout::Layout;
use super::state::{CollectionState, Copy, Dropped, MemberState, Moving, Standing, State};
use super::stored::{
    Id, StoredLayout, StoredPlacing, StoredSchema, UnknownNumber, disks, from_disks, from_layout, id, layout, node,
    nodes,
};

/// Most entries of a log, and most layouts. What claims to have more is damaged.
const NUMBER_MAX: u64 = 1 << 62;
/// The format of states that this program writes, and the only one that it reads.
const FORMAT: u16 = 1;

/// Bytes that are no state that this program knows.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// They are of another format.
    #[error("a state of format {0} is not known to this version: start a newer version of vecino on this node")]
    Unknown(u16),
    /// They cannot be read.
    #[error("a state cannot be read: {0}")]
    Damaged(#[from] rmp_serde::decode::Error),
    /// They name something that this program does not know.
    #[error("a state cannot be read: {0}")]
    Number(String),
    /// They do not hang together.
    #[error("a state does not add up: {0}")]
    Nonsense(&'static str),
}

impl From<UnknownNumber> for StateError {
    fn from(unknown: UnknownNumber) -> Self {
        Self::Number(unknown.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct StoredHead {
    mesh: Id,
    recoveries: u32,
    number: u64,
    acceptors: BTreeMap<Id, Id>,
    seated: u64,
}

/// Disk, and 0 for staying, 1 for leaving, 2 for dead.
#[derive(Serialize, Deserialize)]
struct StoredMember(Id, u8);

#[derive(Serialize, Deserialize)]
struct StoredCollection {
    name: String,
    schema: StoredSchema,
    placing: StoredPlacing,
    moving: Option<StoredMoving>,
    since: u64,
    restoring: Option<Id>,
    copies: BTreeMap<Id, (u64, bool)>,
}

#[derive(Serialize, Deserialize)]
struct StoredMoving(StoredPlacing, u64, BTreeSet<Id>);

#[derive(Serialize, Deserialize)]
struct StoredState {
    head: StoredHead,
    members: BTreeMap<Id, StoredMember>,
    layouts: BTreeMap<u64, StoredLayout>,
    collections: BTreeMap<Id, StoredCollection>,
    dropped: BTreeMap<Id, (String, u64)>,
}

impl State {
    /// The state as bytes; the first two are the format.
    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredState {
            head: head(self),
            members: self.members.iter().map(|(node, state)| (id(node), member(state))).collect(),
            layouts: self.layouts.iter().map(|(number, nodes)| (*number, layout(nodes))).collect(),
            collections: self.collections.iter().map(|(id, state)| (Id(id.0), collection(state))).collect(),
            dropped: self.dropped.iter().map(|(id, dropped)| (Id(id.0), (dropped.name.clone(), dropped.at))).collect(),
        };
        let mut encoded = FORMAT.to_le_bytes().to_vec();
        encoded.extend_from_slice(&bytes(&stored));
        encoded
    }

    /// The state that bytes stand for.
    ///
    /// # Errors
    /// Where they are not a state, or not one that this program knows.
    pub fn decode(encoded: &[u8]) -> Result<Self, StateError> {
        let (format, stored) = encoded.split_first_chunk().ok_or(StateError::Nonsense("it is empty"))?;
        let format = u16::from_le_bytes(*format);
        if format != FORMAT {
            return Err(StateError::Unknown(format));
        }
        let StoredState { head, members, layouts, collections, dropped } = rmp_serde::from_slice(stored)?;
        let StoredHead { mesh, recoveries, number, acceptors, seated } = head;
        let members: Result<_, StateError> =
            members.into_iter().map(|(id, stored)| Ok((node(id), from_member(&stored)?))).collect();
        let collections: Result<BTreeMap<_, _>, StateError> = collections
            .into_iter()
            .map(|(id, stored)| Ok((CollectionId(id.0), Arc::new(from_collection(stored)?))))
            .collect();
        let collections = collections?;
        let names: BTreeMap<String, CollectionId> =
            collections.iter().map(|(id, collection)| (collection.name.clone(), *id)).collect();
        let mut state = Self {
            mesh: MeshId(mesh.0),
            recoveries,
            number,
            acceptors: from_disks(acceptors),
            seated,
            members: members?,
            layouts: layouts.into_iter().map(|(number, stored)| (number, Arc::new(from_layout(stored)))).collect(),
            names,
            dropped: dropped.into_iter().map(|(id, (name, at))| (CollectionId(id.0), Dropped { name, at })).collect(),
            collections,
            hash: StateHash::default(),
        };
        state.check()?;
        state.hash = state.hash_anew();
        Ok(state)
    }

    fn check(&self) -> Result<(), StateError> {
        let newest = self.layouts.last_key_value().ok_or(StateError::Nonsense("it has no layout"))?;
        if self.number.max(*newest.0) > NUMBER_MAX {
            return Err(StateError::Nonsense("it has more entries, or layouts, than there can be"));
        }
        if newest.1.is_empty() || self.acceptors.is_empty() {
            return Err(StateError::Nonsense("it has no nodes, or none that accept"));
        }
        if self.names.len() != self.collections.len() {
            return Err(StateError::Nonsense("two collections have one name"));
        }
        let layouts = self.collections.values().flat_map(|collection| collection.layouts().collect::<Vec<_>>());
        if layouts.into_iter().any(|layout| !self.layouts.contains_key(&layout)) {
            return Err(StateError::Nonsense("a collection lies on a layout that is not there"));
        }
        Ok(())
    }

    /// The hash of all that is in it.
    pub(super) fn hash_anew(&self) -> StateHash {
        let mut hash = StateHash::default();
        hash.toggle(Part::Head, &[], &head_bytes(self));
        for (node, state) in &self.members {
            hash.toggle(Part::Member, node.as_bytes(), &member_bytes(state));
        }
        for (number, nodes) in &self.layouts {
            hash.toggle(Part::Layout, &number.to_le_bytes(), &layout_bytes(nodes));
        }
        for (id, state) in &self.collections {
            hash.toggle(Part::Collection, &id.0, &collection_bytes(state));
        }
        for (id, state) in &self.dropped {
            hash.toggle(Part::Dropped, &id.0, &dropped_bytes(state));
        }
        hash
    }
}

pub(super) fn head_bytes(state: &State) -> Vec<u8> {
    bytes(&head(state))
}

pub(super) fn member_bytes(state: &MemberState) -> Vec<u8> {
    bytes(&member(state))
}

pub(super) fn layout_bytes(nodes: &Layout) -> Vec<u8> {
    bytes(&layout(nodes))
}

pub(super) fn collection_bytes(state: &CollectionState) -> Vec<u8> {
    bytes(&collection(state))
}

pub(super) fn dropped_bytes(Dropped { name, at }: &Dropped) -> Vec<u8> {
    bytes(&(name, at))
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("ids, numbers, strings and maps of them always encode")
}

fn head(state: &State) -> StoredHead {
    let State { mesh, recoveries, number, acceptors, seated, .. } = state;
    let acceptors = disks(acceptors);
    StoredHead { mesh: Id(mesh.0), recoveries: *recoveries, number: *number, acceptors, seated: *seated }
}

fn member(MemberState { disk, standing }: &MemberState) -> StoredMember {
    let standing = match standing {
        Standing::Staying => 0,
        Standing::Leaving => 1,
        Standing::Dead => 2,
    };
    StoredMember(Id(disk.0), standing)
}

fn from_member(StoredMember(disk, standing): &StoredMember) -> Result<MemberState, StateError> {
    let standing = match standing {
        0 => Standing::Staying,
        1 => Standing::Leaving,
        2 => Standing::Dead,
        other => return Err(StateError::Number(format!("standing {other} is not known"))),
    };
    Ok(MemberState { disk: DiskId(disk.0), standing })
}

fn collection(state: &CollectionState) -> StoredCollection {
    let CollectionState { name, schema, placing, moving, since, restoring, copies } = state;
    let moving =
        moving.as_ref().map(|Moving { to, begun, gaining }| StoredMoving((*to).into(), *begun, nodes(gaining)));
    let copies = copies.iter().map(|(node, Copy { number, is_filled })| (id(node), (*number, *is_filled))).collect();
    StoredCollection {
        name: name.clone(),
        schema: schema.into(),
        placing: (*placing).into(),
        moving,
        since: *since,
        restoring: restoring.map(|RestoreId(restore)| Id(restore)),
        copies,
    }
}

fn from_collection(stored: StoredCollection) -> Result<CollectionState, StateError> {
    let StoredCollection { name, schema, placing, moving, since, restoring, copies } = stored;
    let moving = moving.map(|StoredMoving(to, begun, gaining)| {
        let gaining: BTreeSet<NodeId> = gaining.into_iter().map(node).collect();
        Moving { to: to.into(), begun, gaining }
    });
    let copies = copies.into_iter().map(|(id, (number, is_filled))| (node(id), Copy { number, is_filled })).collect();
    Ok(CollectionState {
        name,
        schema: schema.try_into()?,
        placing: placing.into(),
        moving,
        since,
        restoring: restoring.map(|restore| RestoreId(restore.0)),
        copies,
    })
}
