//! bpmgate
fn main() {}
