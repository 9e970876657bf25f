//! Changes as bytes: a number for each kind, and the fields of it as an array.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use vecino_model::{CollectionId, CollectionSchema, DiskId, MeshId, NodeId};

use super::change::{Change, Newcomer, RestoreId};
use super::entry::{CHANGE_BYTES_MAX, EncodedChange, TooLarge, Unreadable};
use super::stored::{
    Id, Numbers, StoredFsync, StoredNewcomer, StoredPlace, StoredPlacing, StoredSchema, disks, from_disks,
    from_numbers, id, node, nodes, numbers,
};

/// The newest format of each kind that this program knows.
const FORMAT: u16 = 1;

const FORM: u16 = 1;
const ADOPT: u16 = 2;
const JOIN: u16 = 3;
const LEAVE: u16 = 4;
const PART: u16 = 5;
const REARRANGE: u16 = 6;
const SEAT: u16 = 7;
const REPLACE_DISK: u16 = 8;
const REPLACE_COPY: u16 = 9;
const FILLED: u16 = 10;
const CREATE: u16 = 11;
const END_RESTORE: u16 = 12;
const SET_FSYNC: u16 = 13;
const DROP: u16 = 14;
const FORGET: u16 = 15;
const BEGIN_MOVE: u16 = 16;
const END_MOVE: u16 = 17;
const TURN_BACK: u16 = 18;
const GAINED: u16 = 19;

fn places<'a, T: 'a, S: From<&'a T>>(places: &'a BTreeMap<NodeId, T>) -> BTreeMap<Id, S> {
    places.iter().map(|(node, place)| (id(node), place.into())).collect()
}

fn from_places<S, T: From<S>>(places: BTreeMap<Id, S>) -> BTreeMap<NodeId, T> {
    places.into_iter().map(|(id, place)| (node(id), place.into())).collect()
}

impl EncodedChange {
    /// A change as bytes.
    ///
    /// # Errors
    /// Where they are more than [`CHANGE_BYTES_MAX`].
    pub fn new(change: &Change) -> Result<Self, TooLarge> {
        let encoded = encode(change);
        let bytes = encoded.body.len();
        if bytes > CHANGE_BYTES_MAX { Err(TooLarge { bytes }) } else { Ok(encoded) }
    }

    /// The change that the bytes stand for.
    ///
    /// # Errors
    /// Where this program does not know it, or cannot read it.
    pub fn decode(&self) -> Result<Change, Unreadable> {
        decode(self)
    }
}

/// A change as bytes, however many these are.
fn encode(change: &Change) -> EncodedChange {
    let (kind, body) = match change {
        Change::Form { mesh, members, acceptors } => {
            (FORM, bytes(&(Id(mesh.0), places::<_, StoredNewcomer>(members), disks(acceptors))))
        }
        Change::Adopt { id, name, schema, placement } => {
            let placement: BTreeMap<Id, &Vec<u64>> =
                placement.iter().map(|(node, tokens)| (Id(*node.as_bytes()), tokens)).collect();
            (ADOPT, bytes(&(Id(id.0), name, StoredSchema::from(schema), placement)))
        }
        Change::Join { node, newcomer, after } => (JOIN, bytes(&(id(node), StoredNewcomer::from(newcomer), after))),
        Change::Leave { node, after, is_dead } => (LEAVE, bytes(&(id(node), after, is_dead))),
        Change::Part { node } => (PART, bytes(&(id(node),))),
        Change::Rearrange { after, nodes } => (REARRANGE, bytes(&(after, places::<_, StoredPlace>(nodes)))),
        Change::Seat { after, acceptors } => (SEAT, bytes(&(after, disks(acceptors)))),
        Change::ReplaceDisk { node, was, disk } => (REPLACE_DISK, bytes(&(id(node), Id(was.0), Id(disk.0)))),
        Change::ReplaceCopy { node, id: of, was } => (REPLACE_COPY, bytes(&(id(node), Id(of.0), was))),
        Change::Filled { node, copies } => (FILLED, bytes(&(id(node), numbers(copies)))),
        Change::Create { id, name, schema, restoring } => {
            let restoring = restoring.map(|RestoreId(restore)| Id(restore));
            (CREATE, bytes(&(Id(id.0), name, StoredSchema::from(schema), restoring)))
        }
        Change::EndRestore { id, restore } => (END_RESTORE, bytes(&(Id(id.0), Id(restore.0)))),
        Change::SetFsync { id, fsync } => (SET_FSYNC, bytes(&(Id(id.0), StoredFsync::from(*fsync)))),
        Change::Drop { id } => (DROP, bytes(&(Id(id.0),))),
        Change::Forget { ids } => (FORGET, bytes(&(ids.iter().map(|id| Id(id.0)).collect::<BTreeSet<_>>(),))),
        Change::BeginMove { collections, to, gaining } => {
            (BEGIN_MOVE, bytes(&(numbers(collections), StoredPlacing::from(*to), nodes(gaining))))
        }
        Change::Gained { node, disk, moves } => (GAINED, bytes(&(id(node), Id(disk.0), numbers(moves)))),
        Change::EndMove { moves } => (END_MOVE, bytes(&(numbers(moves),))),
        Change::TurnBack { moves } => (TURN_BACK, bytes(&(numbers(moves),))),
    };
    EncodedChange { kind, format: FORMAT, body }
}

/// The change that bytes stand for.
fn decode(encoded: &EncodedChange) -> Result<Change, Unreadable> {
    let EncodedChange { kind, format, body } = encoded;
    let (kind, format) = (*kind, *format);
    if format != FORMAT {
        return Err(Unreadable::Unknown { kind, format });
    }
    let reader = Reader { kind, format, body };
    Ok(match kind {
        FORM => {
            let (mesh, members, acceptors) = reader.read::<(Id, BTreeMap<Id, StoredNewcomer>, BTreeMap<Id, Id>)>()?;
            let members: BTreeMap<NodeId, Newcomer> = from_places(members);
            Change::Form { mesh: MeshId(mesh.0), members, acceptors: from_disks(acceptors) }
        }
        ADOPT => {
            let (id, name, schema, placement) = reader.read::<(Id, String, StoredSchema, BTreeMap<Id, Vec<u64>>)>()?;
            let placement = placement.into_iter().map(|(id, tokens)| (node(id), tokens)).collect();
            Change::Adopt { id: CollectionId(id.0), name, schema: reader.schema(schema)?, placement }
        }
        JOIN => {
            let (id, newcomer, after) = reader.read::<(Id, StoredNewcomer, u64)>()?;
            Change::Join { node: node(id), newcomer: newcomer.into(), after }
        }
        LEAVE => {
            let (id, after, is_dead) = reader.read::<(Id, u64, bool)>()?;
            Change::Leave { node: node(id), after, is_dead }
        }
        PART => Change::Part { node: node(reader.read::<(Id,)>()?.0) },
        REARRANGE => {
            let (after, nodes) = reader.read::<(u64, BTreeMap<Id, StoredPlace>)>()?;
            Change::Rearrange { after, nodes: from_places(nodes) }
        }
        SEAT => {
            let (after, acceptors) = reader.read::<(u64, BTreeMap<Id, Id>)>()?;
            Change::Seat { after, acceptors: from_disks(acceptors) }
        }
        REPLACE_DISK => {
            let (id, was, disk) = reader.read::<(Id, Id, Id)>()?;
            Change::ReplaceDisk { node: node(id), was: DiskId(was.0), disk: DiskId(disk.0) }
        }
        REPLACE_COPY => {
            let (of, id, was) = reader.read::<(Id, Id, u64)>()?;
            Change::ReplaceCopy { node: node(of), id: CollectionId(id.0), was }
        }
        FILLED => {
            let (of, copies) = reader.read::<(Id, Numbers)>()?;
            Change::Filled { node: node(of), copies: from_numbers(copies) }
        }
        CREATE => {
            let (id, name, schema, restoring) = reader.read::<(Id, String, StoredSchema, Option<Id>)>()?;
            let restoring = restoring.map(|restore| RestoreId(restore.0));
            Change::Create { id: CollectionId(id.0), name, schema: reader.schema(schema)?, restoring }
        }
        END_RESTORE => {
            let (id, restore) = reader.read::<(Id, Id)>()?;
            Change::EndRestore { id: CollectionId(id.0), restore: RestoreId(restore.0) }
        }
        SET_FSYNC => {
            let (id, fsync) = reader.read::<(Id, StoredFsync)>()?;
            let fsync = fsync.try_into().map_err(|reason| reader.damaged(reason))?;
            Change::SetFsync { id: CollectionId(id.0), fsync }
        }
        DROP => Change::Drop { id: CollectionId(reader.read::<(Id,)>()?.0.0) },
        FORGET => {
            let (ids,) = reader.read::<(BTreeSet<Id>,)>()?;
            Change::Forget { ids: ids.into_iter().map(|id| CollectionId(id.0)).collect() }
        }
        BEGIN_MOVE => {
            let (collections, to, gaining) = reader.read::<(Numbers, StoredPlacing, BTreeSet<Id>)>()?;
            let gaining = gaining.into_iter().map(node).collect();
            Change::BeginMove { collections: from_numbers(collections), to: to.into(), gaining }
        }
        GAINED => {
            let (of, disk, moves) = reader.read::<(Id, Id, Numbers)>()?;
            Change::Gained { node: node(of), disk: DiskId(disk.0), moves: from_numbers(moves) }
        }
        END_MOVE => Change::EndMove { moves: from_numbers(reader.read::<(Numbers,)>()?.0) },
        TURN_BACK => Change::TurnBack { moves: from_numbers(reader.read::<(Numbers,)>()?.0) },
        _ => return Err(Unreadable::Unknown { kind, format }),
    })
}

/// Reads the body of a change.
struct Reader<'a> {
    kind: u16,
    format: u16,
    body: &'a [u8],
}

impl Reader<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Unreadable> {
        let mut rest = self.body;
        let read: T = rmp_serde::from_read(&mut rest).map_err(|reason| self.damaged(reason))?;
        let rest = rest.len();
        if rest > 0 { Err(self.damaged(format_args!("{rest} bytes follow it"))) } else { Ok(read) }
    }

    fn schema(&self, stored: StoredSchema) -> Result<CollectionSchema, Unreadable> {
        stored.try_into().map_err(|reason| self.damaged(reason))
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> Unreadable {
        Unreadable::Damaged { kind: self.kind, format: self.format, reason: reason.to_string() }
    }
}

fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("ids, numbers, strings and maps of them always encode")
}
