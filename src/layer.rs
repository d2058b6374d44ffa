//! The layers, one file each. They share nothing but typed values in the request's extensions.
//!
//! Every layer is a tower [`Layer`](tower::Layer) that can be used alone in any tower service; its
//! error is a [`Problem`](crate::Problem), which [`ProblemLayer`] alone turns into an answer. A layer
//! that misses a value which another one must provide fails closed.

pub mod admit;
pub mod audit;
pub mod authorize;
mod checked;
pub mod cors;
pub mod credentials;
pub mod deadline;
#[cfg(feature = "fetch")]
pub mod end_long_polls;
pub mod engine_answer;
pub mod engine_headers;
pub mod extract_identity;
pub mod initiator;
pub mod limit_caller;
pub mod limit_rate;
pub mod match_operation;
pub mod measure_engine;
pub mod normalize_path;
pub mod observe;
pub mod own;
pub mod pages;
pub mod problems;
#[cfg(feature = "fetch")]
pub mod retry;
pub mod rewrite_path;
pub mod route;
#[cfg(feature = "fetch")]
pub mod trace;
#[cfg(feature = "fetch")]
pub mod trace_engine;
pub mod verify_token;

pub use admit::{Admit, AdmitLayer};
pub use audit::{Audit, AuditLayer, MAX_LOOKED_AT};
pub use authorize::{Authorize, AuthorizeLayer};
pub use checked::{Check, CheckLayer, Checked, CheckedLater, Checking};
pub use cors::{Cors, CorsLayer, CorsOrigins};
pub use credentials::{Credentials, CredentialsLayer};
pub use deadline::{Deadline, DeadlineLayer};
#[cfg(feature = "fetch")]
pub use end_long_polls::{EndLongPolls, EndLongPollsLayer, EndOfLongPolls};
pub use engine_answer::{EngineAnswer, EngineAnswerLayer, MAX_LINKS_BYTES};
pub use engine_headers::{EngineHeaders, EngineHeadersLayer};
pub use extract_identity::{ExtractIdentity, ExtractIdentityLayer};
pub use initiator::{Initiator, InitiatorLayer};
pub use limit_caller::{CallerPermit, LimitCaller, LimitCallerLayer};
pub use limit_rate::{LimitRate, LimitRateLayer};
pub use match_operation::{MatchOperation, MatchOperationLayer};
pub use measure_engine::{MeasureEngine, MeasureEngineLayer};
pub use normalize_path::{NormalizePath, NormalizePathLayer};
pub use observe::{Observe, ObserveLayer};
pub use own::{OWN_PATHS, Own};
pub use pages::Pages;
pub use problems::{ProblemLayer, Problems};
#[cfg(feature = "fetch")]
pub use retry::{Retry, RetryBudget, RetryLayer};
pub use rewrite_path::{RewritePath, RewritePathLayer};
pub use route::{Route, RouteLayer};
#[cfg(feature = "fetch")]
pub use trace::{Trace, TraceLayer};
#[cfg(feature = "fetch")]
pub use trace_engine::{TraceEngine, TraceEngineLayer};
pub use verify_token::{VerifyToken, VerifyTokenLayer};
