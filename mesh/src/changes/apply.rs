//! Applying an entry to a state: total and deterministic, for every node has to come to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vecino_model::{CollectionId, CollectionSchema, DiskId, NodeId, Placement};

use super::change::{Change, Newcomer, RestoreId};
use super::effect::NoEffect;
use super::entry::{Entry, Unreadable};
use super::hash::{Part, StateHash};
use super::layout::{Layout, LayoutNode, Placing};
use super::state::{CollectionState, Copy, Dropped, MemberState, Moving, Standing, State};
use super::state_codec::{collection_bytes, dropped_bytes, head_bytes, layout_bytes, member_bytes};

/// What became of each change of an entry.
pub type Effects = Vec<Result<(), NoEffect>>;

/// Why an entry is no entry 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBeginning {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It does not begin a mesh.
    #[error("the first entry does not begin a mesh: it names no members, or no acceptors among them")]
    NoMembers,
}

impl State {
    /// The state after entry 1.
    ///
    /// # Errors
    /// Where the entry does not begin with [`Change::Form`], or that names nobody.
    pub fn begin(entry: &Entry) -> Result<(Self, Effects), NoBeginning> {
        let changes = decode(entry)?;
        // What is adopted lies on older layouts, and moves to that of the members like any other.
        let layout = 1 + changes.iter().filter(|change| matches!(change, Change::Adopt { .. })).count() as u64;
        let mut changes = changes.into_iter();
        let Some(Change::Form { mesh, members, acceptors }) = changes.next() else {
            return Err(NoBeginning::NoMembers);
        };
        let sits = |(node, disk): (&NodeId, &DiskId)| members.get(node).is_some_and(|member| member.disk == *disk);
        if acceptors.is_empty() || !acceptors.iter().all(sits) {
            return Err(NoBeginning::NoMembers);
        }
        let mut state = Self {
            mesh,
            recoveries: 0,
            number: 1,
            acceptors,
            seated: 1,
            members: BTreeMap::new(),
            layouts: BTreeMap::new(),
            collections: BTreeMap::new(),
            names: BTreeMap::new(),
            dropped: BTreeMap::new(),
            hash: StateHash::default(),
        };
        let nodes = members.iter().map(|(node, member)| (*node, member.place.clone())).collect();
        for (node, Newcomer { disk, place: _ }) in members {
            state.set_member(node, Some(MemberState { disk, standing: Standing::Staying }));
        }
        state.set_layout(layout, Some(Layout { nodes }));
        let mut effects = vec![Ok(())];
        for change in changes {
            effects.push(match change {
                Change::Adopt { id, name, schema, placement } => state.adopt(id, name, schema, placement),
                change => state.change(change),
            });
        }
        state.forget_layouts();
        state.hash.toggle(Part::Head, &[], &head_bytes(&state));
        Ok((state, effects))
    }

    /// Applies the next entry; says what became of each of its changes.
    ///
    /// # Errors
    /// Where this program cannot read all of it: nothing is changed then, and nobody may go on behind it.
    pub fn apply(&mut self, entry: &Entry) -> Result<Effects, Unreadable> {
        let changes = decode(entry)?;
        self.hash.toggle(Part::Head, &[], &head_bytes(self));
        self.number += 1;
        let effects = changes.into_iter().map(|change| self.change(change)).collect();
        self.forget_layouts();
        self.hash.toggle(Part::Head, &[], &head_bytes(self));
        Ok(effects)
    }

    fn change(&mut self, change: Change) -> Result<(), NoEffect> {
        match change {
            Change::Form { .. } | Change::Adopt { .. } => Err(NoEffect::Begun),
            Change::Join { node, newcomer, after } => self.join(node, newcomer, after),
            Change::Leave { node, after, is_dead } => self.leave(node, after, is_dead),
            Change::Part { node } => self.part(node),
            Change::Rearrange { after, nodes } => self.rearrange(after, nodes),
            Change::Seat { after, acceptors } => self.seat(after, acceptors),
            Change::ReplaceDisk { node, was, disk } => self.replace_disk(node, was, disk),
            Change::ReplaceCopy { node, id, was } => self.replace_copy(node, id, was),
            Change::Filled { node, copies } => self.filled(node, &copies),
            Change::Create { id, name, schema, restoring } => self.create(id, name, schema, restoring),
            Change::EndRestore { id, restore } => self.end_restore(id, restore),
            Change::SetFsync { id, fsync } => {
                let known = self.get(id)?;
                if known.schema.fsync == fsync {
                    return Err(NoEffect::Same);
                }
                self.update(id, |collection| collection.schema.fsync = fsync);
                Ok(())
            }
            Change::Drop { id } => self.drop_collection(id),
            Change::Forget { ids } => self.forget(&ids),
            Change::BeginMove { collections, to, gaining } => self.begin_move(&collections, to, &gaining),
            Change::Gained { node, disk, moves } => self.gained(node, disk, &moves),
            Change::EndMove { moves } => self.end_move(&moves),
            Change::TurnBack { moves } => self.turn_back(&moves),
        }
    }

    // ------------------------------------------------------------------------------------------- members and layouts

    fn join(&mut self, node: NodeId, newcomer: Newcomer, after: u64) -> Result<(), NoEffect> {
        if let Some(MemberState { disk, .. }) = self.members.get(&node) {
            return Err(NoEffect::Member { node, disk: *disk });
        }
        let Newcomer { disk, place } = newcomer;
        let mut layout = self.newest(after)?;
        if place.tokens.is_empty() {
            return Err(NoEffect::Nodes);
        }
        layout.nodes.insert(node, place);
        self.set_layout(after + 1, Some(layout));
        self.set_member(node, Some(MemberState { disk, standing: Standing::Staying }));
        Ok(())
    }

    fn leave(&mut self, node: NodeId, after: u64, is_dead: bool) -> Result<(), NoEffect> {
        let MemberState { disk, standing } = self.member(node)?.clone();
        let going = if is_dead { Standing::Dead } else { Standing::Leaving };
        match standing {
            Standing::Staying => {
                let mut layout = self.newest(after)?;
                layout.nodes.remove(&node);
                if layout.is_empty() {
                    return Err(NoEffect::LastMember(node));
                }
                self.check_replicas(layout.len())?;
                self.set_layout(after + 1, Some(layout));
            }
            // One that was leaving has died.
            Standing::Leaving if is_dead => {}
            Standing::Leaving | Standing::Dead => return Err(NoEffect::LeavingAlready(node)),
        }
        self.set_member(node, Some(MemberState { disk, standing: going }));
        Ok(())
    }

    fn part(&mut self, node: NodeId) -> Result<(), NoEffect> {
        if self.member(node)?.standing == Standing::Staying {
            return Err(NoEffect::Staying(node));
        }
        let keeps = self.layouts.values().any(|layout| layout.nodes.contains_key(&node));
        if keeps || self.acceptors.contains_key(&node) {
            return Err(NoEffect::InUse(node));
        }
        self.set_member(node, None);
        Ok(())
    }

    fn rearrange(&mut self, after: u64, nodes: BTreeMap<NodeId, LayoutNode>) -> Result<(), NoEffect> {
        let layout = self.newest(after)?;
        if !nodes.keys().eq(layout.nodes.keys()) || nodes.values().any(|node| node.tokens.is_empty()) {
            return Err(NoEffect::Nodes);
        }
        if nodes == layout.nodes {
            return Err(NoEffect::Same);
        }
        self.set_layout(after + 1, Some(Layout { nodes }));
        Ok(())
    }

    /// The newest layout, to make another of it, if it is the one that a change was made for.
    fn newest(&self, after: u64) -> Result<Layout, NoEffect> {
        let (newest, layout) = self.newest_layout();
        if newest == after { Ok((**layout).clone()) } else { Err(NoEffect::Layout { newest, after }) }
    }

    /// Refuses that fewer nodes are left than some collection needs.
    fn check_replicas(&self, nodes: usize) -> Result<(), NoEffect> {
        let needs = |collection: &CollectionState| match &collection.moving {
            Some(Moving { to, .. }) => to.replicas,
            None => collection.placing.replicas,
        };
        match self.collections.values().find(|collection| needs(collection) as usize > nodes) {
            Some(short) => {
                let (name, replicas) = (short.name.clone(), needs(short));
                Err(NoEffect::TooFewNodes { name, replicas, nodes })
            }
            None => Ok(()),
        }
    }

    /// Layouts that nothing lies on or moves to are forgotten, but for the newest.
    fn forget_layouts(&mut self) {
        if self.layouts.len() == 1 {
            return;
        }
        let mut used: BTreeSet<u64> = self.collections.values().flat_map(|collection| collection.layouts()).collect();
        used.insert(self.newest_layout().0);
        let unused: Vec<u64> = self.layouts.keys().filter(|number| !used.contains(number)).copied().collect();
        unused.into_iter().for_each(|number| self.set_layout(number, None));
    }

    fn seat(&mut self, after: u64, acceptors: BTreeMap<NodeId, DiskId>) -> Result<(), NoEffect> {
        let sits = |(node, disk): (&NodeId, &DiskId)| self.members.get(node).is_some_and(|member| member.disk == *disk);
        if after != self.seated || acceptors.len().is_multiple_of(2) || !acceptors.iter().all(sits) {
            return Err(NoEffect::Acceptors);
        }
        if acceptors == self.acceptors {
            return Err(NoEffect::Same);
        }
        (self.acceptors, self.seated) = (acceptors, self.number);
        Ok(())
    }

    // ----------------------------------------------------------------------------------------------- disks and copies

    fn replace_disk(&mut self, node: NodeId, was: DiskId, disk: DiskId) -> Result<(), NoEffect> {
        let MemberState { disk: known, standing } = self.member(node)?.clone();
        if known != was || disk == was {
            return Err(NoEffect::Disk { node, disk: known });
        }
        self.set_member(node, Some(MemberState { disk, standing }));
        let kept = self.collections.iter().filter(|(_, collection)| self.is_kept_by(collection, node));
        for id in kept.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.begin_copy(id, node);
        }
        Ok(())
    }

    fn replace_copy(&mut self, node: NodeId, id: CollectionId, was: u64) -> Result<(), NoEffect> {
        self.member(node)?;
        let collection = self.get(id)?;
        if !self.is_kept_by(collection, node) {
            return Err(NoEffect::KeepsNothing { node, id });
        }
        if collection.copy(node) != was {
            return Err(NoEffect::Copies(node));
        }
        self.begin_copy(id, node);
        Ok(())
    }

    /// What a node has of a collection is gone: a new copy begins, which has nothing.
    fn begin_copy(&mut self, id: CollectionId, node: NodeId) {
        let number = self.number;
        let layouts = self.layouts.clone();
        self.update(id, |collection| {
            collection.copies.insert(node, Copy { number, is_filled: false });
            if let Some(Moving { to, begun: _, gaining }) = &mut collection.moving
                && layouts.get(&to.layout).is_some_and(|layout| layout.nodes.contains_key(&node))
            {
                gaining.insert(node);
            }
        });
    }

    fn filled(&mut self, node: NodeId, copies: &BTreeMap<CollectionId, u64>) -> Result<(), NoEffect> {
        self.member(node)?;
        let is_this = |id: &CollectionId, number: u64| {
            let copy = self.collections.get(id).and_then(|collection| collection.copies.get(&node));
            copy.is_some_and(|copy| copy.number == number && !copy.is_filled)
        };
        let filled: Vec<(CollectionId, u64)> =
            copies.iter().filter(|(id, number)| is_this(id, **number)).map(|(id, number)| (*id, *number)).collect();
        for (id, number) in &filled {
            self.update(*id, |collection| {
                collection.copies.insert(node, Copy { number: *number, is_filled: true });
            });
        }
        if filled.is_empty() { Err(NoEffect::Copies(node)) } else { Ok(()) }
    }

    // ------------------------------------------------------------------------------------------------------ collections

    fn create(
        &mut self,
        id: CollectionId,
        name: String,
        schema: CollectionSchema,
        restoring: Option<RestoreId>,
    ) -> Result<(), NoEffect> {
        let (layout, nodes) = self.newest_layout();
        let (replicas, nodes) = (schema.replication_factor, nodes.len());
        self.check_new(id, &name)?;
        if replicas == 0 {
            return Err(NoEffect::NoReplicas);
        }
        if replicas as usize > nodes {
            return Err(NoEffect::TooFewNodes { name, replicas, nodes });
        }
        self.add(id, name, schema, Placing { layout, replicas }, restoring);
        Ok(())
    }

    fn adopt(
        &mut self,
        id: CollectionId,
        name: String,
        schema: CollectionSchema,
        placement: Placement,
    ) -> Result<(), NoEffect> {
        self.check_new(id, &name)?;
        if placement.is_empty() || schema.replication_factor == 0 {
            return Err(NoEffect::NoReplicas);
        }
        let known = self.layouts.iter().find(|(_, layout)| layout.placement() == placement);
        let layout = match known {
            Some((number, _)) => *number,
            None => {
                let newest = Arc::clone(self.newest_layout().1);
                let zone = |node: &NodeId| newest.nodes.get(node).map(|place| place.zone.clone()).unwrap_or_default();
                let place = |(node, tokens): (NodeId, Vec<u64>)| (node, LayoutNode { zone: zone(&node), tokens });
                let nodes = placement.into_iter().map(place).collect();
                let unused = (1..).find(|number| !self.layouts.contains_key(number)).unwrap_or(u64::MAX);
                self.set_layout(unused, Some(Layout { nodes }));
                unused
            }
        };
        let replicas = schema.replication_factor;
        self.add(id, name, schema, Placing { layout, replicas }, None);
        Ok(())
    }

    fn check_new(&self, id: CollectionId, name: &str) -> Result<(), NoEffect> {
        if self.collections.contains_key(&id) || self.dropped.contains_key(&id) {
            return Err(NoEffect::IdInUse(id));
        }
        match self.names.get(name) {
            Some(known) => Err(NoEffect::NameInUse { name: name.to_owned(), id: *known }),
            None => Ok(()),
        }
    }

    fn add(
        &mut self,
        id: CollectionId,
        name: String,
        schema: CollectionSchema,
        placing: Placing,
        restoring: Option<RestoreId>,
    ) {
        self.names.insert(name.clone(), id);
        let (since, copies) = (self.number, BTreeMap::new());
        let collection = CollectionState { name, schema, placing, moving: None, since, restoring, copies };
        self.set_collection(id, Some(collection));
    }

    fn end_restore(&mut self, id: CollectionId, restore: RestoreId) -> Result<(), NoEffect> {
        if self.get(id)?.restoring != Some(restore) {
            return Err(NoEffect::NoRestore(id));
        }
        self.update(id, |collection| collection.restoring = None);
        Ok(())
    }

    fn drop_collection(&mut self, id: CollectionId) -> Result<(), NoEffect> {
        let name = self.get(id)?.name.clone();
        self.set_collection(id, None);
        self.names.remove(&name);
        let at = self.number;
        self.set_dropped(id, Some(Dropped { name, at }));
        Ok(())
    }

    fn forget(&mut self, ids: &BTreeSet<CollectionId>) -> Result<(), NoEffect> {
        let known: Vec<CollectionId> = ids.iter().filter(|id| self.dropped.contains_key(id)).copied().collect();
        known.iter().for_each(|id| self.set_dropped(*id, None));
        if known.is_empty() { Err(NoEffect::Same) } else { Ok(()) }
    }

    // ------------------------------------------------------------------------------------------------------------ moves

    fn begin_move(
        &mut self,
        collections: &BTreeMap<CollectionId, u64>,
        to: Placing,
        gaining: &BTreeSet<NodeId>,
    ) -> Result<(), NoEffect> {
        let Some(layout) = self.layouts.get(&to.layout) else { return Err(NoEffect::Moved) };
        let fits = (1..=layout.len()).contains(&(to.replicas as usize));
        if !fits || !gaining.iter().all(|node| layout.nodes.contains_key(node)) {
            return Err(NoEffect::Moved);
        }
        let begun = self.number;
        let starts = |collection: &CollectionState, since: u64| {
            collection.since == since && collection.moving.is_none() && collection.placing != to
        };
        let moved = self.matching(collections, starts);
        for id in &moved {
            let gaining = gaining.clone();
            self.update(*id, |collection| collection.moving = Some(Moving { to, begun, gaining }));
        }
        if moved.is_empty() { Err(NoEffect::Moved) } else { Ok(()) }
    }

    fn gained(&mut self, node: NodeId, disk: DiskId, moves: &BTreeMap<CollectionId, u64>) -> Result<(), NoEffect> {
        let known = self.member(node)?.disk;
        if known != disk {
            return Err(NoEffect::Disk { node, disk: known });
        }
        let gains = |collection: &CollectionState, begun: u64| {
            collection.moving.as_ref().is_some_and(|moving| moving.begun == begun && moving.gaining.contains(&node))
        };
        let gained = self.matching(moves, gains);
        for id in &gained {
            let Some(known) = self.collections.get(id) else { continue };
            // Nobody's quorums change by this, so the fence stays where it is.
            let mut next = (**known).clone();
            if let Some(moving) = &mut next.moving {
                moving.gaining.remove(&node);
            }
            self.set_collection(*id, Some(next));
        }
        if gained.is_empty() { Err(NoEffect::Moved) } else { Ok(()) }
    }

    fn end_move(&mut self, moves: &BTreeMap<CollectionId, u64>) -> Result<(), NoEffect> {
        let layouts = self.layouts.clone();
        let ends = |collection: &CollectionState, begun: u64| {
            let Some(Moving { to, begun: known, gaining }) = &collection.moving else { return false };
            let Some(layout) = layouts.get(&to.layout) else { return false };
            *known == begun && gaining.is_empty() && layout.nodes.keys().all(|node| collection.votes(*node))
        };
        let ended = self.matching(moves, ends);
        for id in &ended {
            self.update(*id, |collection| {
                let Some(Moving { to, .. }) = collection.moving.take() else { return };
                collection.placing = to;
                collection.schema.replication_factor = to.replicas;
                let stays =
                    |node: &NodeId| layouts.get(&to.layout).is_some_and(|layout| layout.nodes.contains_key(node));
                collection.copies.retain(|node, _| stays(node));
            });
        }
        if ended.is_empty() { Err(NoEffect::Moved) } else { Ok(()) }
    }

    fn turn_back(&mut self, moves: &BTreeMap<CollectionId, u64>) -> Result<(), NoEffect> {
        let layouts = self.layouts.clone();
        let is_it = |collection: &CollectionState, begun: u64| {
            collection.moving.as_ref().is_some_and(|moving| moving.begun == begun)
        };
        let back = self.matching(moves, is_it);
        for id in &back {
            self.update(*id, |collection| {
                collection.moving = None;
                let layout = layouts.get(&collection.placing.layout);
                collection.copies.retain(|node, _| layout.is_some_and(|layout| layout.nodes.contains_key(node)));
            });
        }
        if back.is_empty() { Err(NoEffect::Moved) } else { Ok(()) }
    }

    /// Those of the collections that are as it is said of them.
    fn matching(
        &self,
        said: &BTreeMap<CollectionId, u64>,
        is_so: impl Fn(&CollectionState, u64) -> bool,
    ) -> Vec<CollectionId> {
        let so =
            said.iter().filter(|(id, number)| self.collections.get(id).is_some_and(|known| is_so(known, **number)));
        so.map(|(id, _)| *id).collect()
    }

    // ------------------------------------------------------------------------------------------------- parts and the hash

    fn member(&self, node: NodeId) -> Result<&MemberState, NoEffect> {
        self.members.get(&node).ok_or(NoEffect::NoMember(node))
    }

    fn get(&self, id: CollectionId) -> Result<&CollectionState, NoEffect> {
        self.collections.get(&id).map(|collection| &**collection).ok_or(NoEffect::NoCollection(id))
    }

    /// Changes a collection so that whoever goes by what it was has to ask again.
    fn update(&mut self, id: CollectionId, change: impl FnOnce(&mut CollectionState)) {
        let Some(known) = self.collections.get(&id) else { return };
        let mut next = (**known).clone();
        change(&mut next);
        next.since = self.number;
        self.set_collection(id, Some(next));
    }

    fn set_collection(&mut self, id: CollectionId, next: Option<CollectionState>) {
        let next = next.map(Arc::new);
        let before = match &next {
            Some(next) => self.collections.insert(id, Arc::clone(next)),
            None => self.collections.remove(&id),
        };
        for state in before.iter().chain(&next) {
            self.hash.toggle(Part::Collection, &id.0, &collection_bytes(state));
        }
    }

    fn set_member(&mut self, node: NodeId, next: Option<MemberState>) {
        let before = match &next {
            Some(next) => self.members.insert(node, next.clone()),
            None => self.members.remove(&node),
        };
        for state in before.iter().chain(&next) {
            self.hash.toggle(Part::Member, node.as_bytes(), &member_bytes(state));
        }
    }

    fn set_layout(&mut self, number: u64, next: Option<Layout>) {
        let next = next.map(Arc::new);
        let before = match &next {
            Some(next) => self.layouts.insert(number, Arc::clone(next)),
            None => self.layouts.remove(&number),
        };
        for state in before.iter().chain(&next) {
            self.hash.toggle(Part::Layout, &number.to_le_bytes(), &layout_bytes(state));
        }
    }

    fn set_dropped(&mut self, id: CollectionId, next: Option<Dropped>) {
        let before = match &next {
            Some(next) => self.dropped.insert(id, next.clone()),
            None => self.dropped.remove(&id),
        };
        for state in before.iter().chain(&next) {
            self.hash.toggle(Part::Dropped, &id.0, &dropped_bytes(state));
        }
    }
}

fn decode(entry: &Entry) -> Result<Vec<Change>, Unreadable> {
    entry.changes.iter().map(|change| change.decode()).collect()
}
