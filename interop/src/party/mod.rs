//! A party: what one device keeps (`state.rs`, written by `stored.rs`), and the generator from which
//! it draws while it runs.

mod state;
mod stored;

pub(crate) use state::{KemUse, OneTime, State};

use rand::rngs::SysRng;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{CryptoRng, SeedableRng, UnwrapErr};

/// Where a party's randomness comes from.
pub(crate) type Generator = Box<dyn CryptoRng>;

/// From a seed, so that a run can be repeated, or from the operating system.
pub(crate) fn generator(seed: Option<[u8; 32]>) -> Generator {
    match seed {
        Some(seed) => Box::new(ChaCha20Rng::from_seed(seed)),
        None => Box::new(UnwrapErr(SysRng)),
    }
}

/// A running party. The generator is not part of its state.
pub(crate) struct Party {
    pub(crate) state: State,
    pub(crate) rng: Generator,
}
