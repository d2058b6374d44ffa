//! bpmgate
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod demo;
