//! What the measuring programs share: vectors, one node, and flags with values.

use std::error::Error;
use std::path::{Path, PathBuf};

use vecino::process::NodeCommand;

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Points are scattered around this number of centres, as real vectors are.
const CENTRES: usize = 1_000;

/// Vectors around centres, one after another.
pub fn vectors(points: usize, dim: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(7);
    let centres: Vec<f32> = (0..CENTRES * dim).map(|_| random.f32()).collect();
    let mut vectors = Vec::with_capacity(points * dim);
    for _ in 0..points {
        let centre = random.usize(..CENTRES) * dim;
        vectors.extend(centres[centre..][..dim].iter().map(|value| value + (random.f32() - 0.5) * 0.5));
    }
    vectors
}

/// A node by itself on a free port of this machine, with certificates of its own making.
pub fn node(program: &Path, data: PathBuf) -> NodeCommand {
    NodeCommand {
        program: program.to_owned(),
        data,
        listen: ([127, 0, 0, 1], 0).into(),
        certs: None,
        seeds: Vec::new(),
        memory_limit: None,
        environment: Vec::new(),
        launcher: Vec::new(),
    }
}

/// Takes the flags of the command line, each with its value; `set` says whether there is such a flag.
pub fn flags(mut set: impl FnMut(&str, &Value) -> Result<bool>) -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let text = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        if !set(&flag, &Value { flag: flag.clone(), text })? {
            return Err(format!("{flag}: no such option").into());
        }
    }
    Ok(())
}

/// What stands behind a flag.
pub struct Value {
    flag: String,
    text: String,
}

impl Value {
    /// It as a path.
    pub fn path(&self) -> PathBuf {
        self.text.clone().into()
    }

    /// It as a number.
    pub fn number(&self) -> Result<usize> {
        let Self { flag, text } = self;
        Ok(text.parse().map_err(|error| format!("{flag} {text}: {error}"))?)
    }
}
