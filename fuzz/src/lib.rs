//! What must hold for every input, whoever makes it: `make fuzz` by libFuzzer, `tests/corpus.rs` from the
//! corpora on every `cargo test`. Each module has one `check`, which panics where something does not hold.

pub mod jwks;
pub mod matcher;
pub mod path;
pub mod splice;
pub mod token;
