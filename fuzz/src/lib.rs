//! What must hold for every input, whoever makes it: `make fuzz` by libFuzzer, `tests/corpus.rs` from the
//! corpora on every `cargo test`. Each module has one `check`, which panics where something does not hold.

pub mod jwks;
pub mod matcher;
pub mod path;
pub mod splice;
pub mod token;

/// A check.
pub type Check = fn(&[u8]);

/// Every check by its name: the name of its target, and of its directory in `corpus`.
pub const CHECKS: [(&str, Check); 5] = [
    ("jwks", jwks::check),
    ("matcher", matcher::check),
    ("path", path::check),
    ("splice", splice::check),
    ("token", token::check),
];
