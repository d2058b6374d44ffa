//! bpmgate
