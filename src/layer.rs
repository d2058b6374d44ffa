//! The layers, one file each. They share nothing but typed values in the request's extensions.

mod checked;
pub mod initiator;

pub use checked::Checked;
pub use initiator::{Initiator, InitiatorLayer};
