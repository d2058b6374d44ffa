//! The layers, one file each. They share nothing but typed values in the request's extensions.

mod checked;
mod extract_identity;
mod verify_token;

pub use checked::Checked;
pub use extract_identity::{ExtractIdentity, ExtractIdentityLayer};
pub use verify_token::{VerifyToken, VerifyTokenFuture, VerifyTokenLayer};
