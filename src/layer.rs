//! The layers, one file each. They share nothing but typed values in the request's extensions.
//!
//! Every layer is a tower [`Layer`](tower::Layer) that can be used alone in any tower service; its
//! error is a [`Problem`](crate::Problem), which [`ProblemLayer`] alone turns into an answer. A layer
//! that misses a value which another one must provide fails closed.

mod admit;
mod audit;
mod authorize;
mod checked;
mod cors;
mod credentials;
mod deadline;
mod engine_answer;
mod engine_headers;
mod extract_identity;
mod initiator;
mod match_operation;
mod normalize_path;
mod observe;
mod own;
mod problems;
#[cfg(feature = "fetch")]
mod retry;
mod rewrite_path;
mod route;
mod verify_token;

pub use admit::{Admit, AdmitLayer, Admitted};
pub use audit::{Audit, AuditFuture, AuditLayer, MAX_LOOKED_AT};
pub use authorize::{Authorize, AuthorizeLayer};
pub use checked::{Check, CheckLayer, Checked, Checking};
pub use cors::{Cors, CorsFuture, CorsLayer, CorsOrigins};
pub use credentials::{Credentials, CredentialsLayer};
pub use deadline::{Deadline, DeadlineFuture, DeadlineLayer};
pub use engine_answer::{Answered, EngineAnswer, EngineAnswerLayer, MAX_LINKS_BYTES};
pub use engine_headers::{EngineHeaders, EngineHeadersLayer};
pub use extract_identity::{ExtractIdentity, ExtractIdentityLayer};
pub use initiator::{Initiator, InitiatorFuture, InitiatorLayer};
pub use match_operation::{MatchOperation, MatchOperationLayer};
pub use normalize_path::{NormalizePath, NormalizePathLayer};
pub use observe::{Observe, ObserveLayer, Observed};
pub use own::{OWN_PATHS, Own};
pub use problems::{ProblemLayer, Problems, ProblemsFuture};
#[cfg(feature = "fetch")]
pub use retry::{Retry, RetryLayer};
pub use rewrite_path::{RewritePath, RewritePathLayer};
pub use route::{Route, RouteLayer, Routed};
pub use verify_token::{VerifyToken, VerifyTokenFuture, VerifyTokenLayer};
