//! What an index is made of, for everything that searches or changes it.

use std::cell::Cell;
use std::sync::Arc;

use crate::build::link::Linker;
use crate::codes::fast::Fast;
use crate::codes::scalar::ScalarCodes;
use crate::kernel::Kernel;
use crate::memory::graph::Graph;
use crate::memory::readers::Readers;
use crate::memory::rows::Rows;
use crate::memory::states::States;
use crate::params::{Metric, Params, Profile};
use crate::search::growth::Growth;
use crate::search::scratch::{Scratch, Scratches};

/// The vectors, the graph over them, the states of slots, and the codes.
pub(crate) struct Parts {
    pub params: Params,
    pub kernel: Kernel,
    pub rows: Rows,
    pub graph: Graph,
    pub states: States,
    pub fast: Option<Fast>,
    pub scalar: Option<ScalarCodes>,
    pub readers: Readers,
    pub growth: Growth,
    pub scratches: Scratches,
}

impl Parts {
    /// Without slots. The parameters have been checked, and the kernel is one that is available.
    pub fn new(params: Params, kernel: Kernel) -> Self {
        Self {
            rows: Rows::new(params.dim, params.metric, kernel),
            graph: Graph::new(params.m, params.seed),
            fast: Fast::new(&params, kernel),
            states: States::new(),
            scalar: (params.profile == Profile::Compact && params.metric != Metric::Manhattan)
                .then(|| ScalarCodes::new(params.metric, params.seed, kernel)),
            readers: Readers::new(),
            growth: Growth::new(),
            scratches: Scratches::new(kernel),
            params,
            kernel,
        }
    }

    /// One more than the highest slot stored.
    pub fn slots(&self) -> usize {
        self.states.slots() as usize
    }

    /// Calls `work` with what changes the graph, by the codes that are in use. The caller holds rounds and reads.
    pub fn with_linker<R>(&self, work: impl FnOnce(&Linker<'_>, &mut Scratch) -> R) -> R {
        let Params { m, ef_construction, .. } = self.params;
        self.scratches.with(|scratch| {
            let _held = self.fast.as_ref().map(Fast::hold);
            let mut cached = scratch.generation.take();
            let current = self.fast.as_ref().and_then(|fast| fast.current(&mut cached)).map(Arc::as_ref);
            let is_coded = current.is_some();
            let warming = if is_coded { None } else { self.fast.as_ref().and_then(Fast::warming) };
            let generation = current.or_else(|| warming.as_ref().map(|warming| warming.generation()));
            let Self { rows, graph, states, .. } = self;
            let (scalar, lonely) = (self.scalar.as_ref(), Cell::new(false));
            let growth = &self.growth;
            let linker =
                Linker { rows, graph, states, generation, is_coded, scalar, m, ef_construction, lonely, growth };
            let result = work(&linker, scratch);
            if let Some(fast) = &self.fast {
                fast.keep_cached(cached, &mut scratch.generation);
            }
            result
        })
    }
}
