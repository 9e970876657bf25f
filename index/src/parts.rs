//! What an index is made of, for everything that searches or changes it.

use std::cell::Cell;

use crate::build::link::Linker;
use crate::codes::chosen::Codes;
use crate::kernel::Kernel;
use crate::memory::graph::Graph;
use crate::memory::readers::Readers;
use crate::memory::rows::Rows;
use crate::memory::states::States;
use crate::params::Params;
use crate::search::growth::Growth;
use crate::search::scratch::{Scratch, Scratches};

/// The vectors, the graph over them, the states of slots, and the codes.
pub(crate) struct Parts {
    pub params: Params,
    pub kernel: Kernel,
    pub rows: Rows,
    pub graph: Graph,
    pub states: States,
    pub codes: Codes,
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
            states: States::new(),
            codes: Codes::new(&params, kernel),
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
        let Self { rows, graph, states, codes, growth, .. } = self;
        let held = codes.hold();
        let (edges, lonely) = (held.edges.as_deref(), Cell::new(false));
        let linker = Linker { rows, graph, states, codes, edges, m, ef_construction, lonely, growth };
        self.scratches.with(|scratch| work(&linker, scratch))
    }
}
