//! What is known of a request before anyone has looked at it, and what the layers found out about it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{Extensions, HeaderValue};
use tokio::time::Instant;

use crate::identity::Identity;
use crate::layer::CallerPermit;
use crate::model::Believed;
use crate::operation::Operation;
use crate::trace_context::TraceId;

/// The address of the peer that holds the connection; put into the extensions by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its IP address.
    pub address: IpAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

/// What every request has. Put into the request's extensions by
/// [`ObserveLayer`](crate::layer::ObserveLayer).
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// The request's id: the client's `X-Request-Id` where it is a plain one, else a new `UUIDv7`.
    pub id: HeaderValue,
    /// The peer of the connection, where known.
    pub peer: Option<Peer>,
    /// When the request's head had been read.
    pub received: Instant,
    /// The time of day then.
    pub time: SystemTime,
}

impl RequestInfo {
    /// The request's id as text.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }
}

/// What inner layers found out, for whoever reports when the answer has ended.
///
/// Request extensions travel inwards only; this is the one way back. Each field is filled once.
#[derive(Debug, Clone, Default)]
pub struct Findings(Arc<Fields>);

#[derive(Debug, Default)]
struct Fields {
    operation: OnceLock<&'static Operation>,
    route: OnceLock<&'static str>,
    profile: OnceLock<Arc<str>>,
    rule: OnceLock<usize>,
    subject: OnceLock<Identity>,
    code: OnceLock<&'static str>,
    business_key: OnceLock<String>,
    event: OnceLock<String>,
    reason: OnceLock<String>,
    believed: OnceLock<Arc<Believed>>,
    model_changed: OnceLock<()>,
    permit: OnceLock<CallerPermit>,
    trace_id: OnceLock<TraceId>,
    recorded: OnceLock<()>,
    process_key: OnceLock<String>,
    /// In nanoseconds.
    waited: AtomicU64,
}

/// What names a request in the lines of the log, for whoever has no request at hand any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestIds(Option<Box<Known>>);

/// Boxed, as most are empty, and futures that hold them are moved.
#[derive(Debug, Clone)]
struct Known {
    info: Option<RequestInfo>,
    findings: Option<Findings>,
}

impl RequestIds {
    /// Those of a request with these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        Self(Some(Box::new(Known {
            info: extensions.get().cloned(),
            findings: extensions.get().cloned(),
        })))
    }

    /// The same where lines of the level `debug` are written; else nothing, at no cost.
    pub(crate) fn at_debug(extensions: &Extensions) -> Self {
        if tracing::enabled!(tracing::Level::DEBUG) {
            Self::of(extensions)
        } else {
            Self::default()
        }
    }

    /// Gives them to a request that is made for that one.
    pub(crate) fn put_into(&self, extensions: &mut Extensions) {
        let Some(known) = &self.0 else {
            return;
        };
        if let Some(info) = &known.info {
            extensions.insert(info.clone());
        }
        if let Some(findings) = &known.findings {
            extensions.insert(findings.clone());
        }
    }

    /// The request's id.
    pub(crate) fn request(&self) -> Option<&str> {
        self.0.as_ref()?.info.as_ref().map(RequestInfo::id)
    }

    /// The id of its trace.
    pub(crate) fn trace(&self) -> Option<&str> {
        self.findings()?.trace_id().map(TraceId::as_str)
    }

    /// What was found out about it.
    pub(crate) fn findings(&self) -> Option<&Findings> {
        self.0.as_ref()?.findings.as_ref()
    }
}

macro_rules! finding {
    ($(#[$doc:meta])* $field:ident, $note:ident, $type:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $field(&self) -> Option<&$type> {
            self.0.$field.get()
        }

        /// Notes it; the first note stays.
        pub fn $note(&self, value: $type) {
            let _ = self.0.$field.set(value);
        }
    };
}

impl Findings {
    /// The request waited so long for others.
    pub(crate) fn note_wait(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// How long the request has waited for others: the engine, an issuer, its client's body, a place in the queue.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.0.waited.load(Ordering::Relaxed))
    }

    finding! {
        /// The row of the catalogue.
        operation, note_operation, &'static Operation
    }
    finding! {
        /// The gateway's own route, such as `/health`.
        route, note_route, &'static str
    }
    finding! {
        /// The profile that decided.
        profile, note_profile, Arc<str>
    }
    finding! {
        /// The place of the access rule that chose the profile, from 0; none for the default.
        rule, note_rule, usize
    }
    finding! {
        /// The caller.
        subject, note_subject, Identity
    }
    finding! {
        /// The definition whose model was asked for before a start.
        believed, note_believed, Arc<Believed>
    }
    finding! {
        /// That the engine started another definition than that.
        model_changed, note_model_changed, ()
    }
    finding! {
        /// The caller's place among their requests in flight, held until the report.
        permit, note_permit, CallerPermit
    }
    finding! {
        /// The trace it belongs to: the client's, or our own.
        trace_id, note_trace_id, TraceId
    }
    finding! {
        /// That a span of it is recorded.
        recorded, note_recorded, ()
    }
    finding! {
        /// The key of the process definition that the path names, noted for a span alone; as long as a text of the audit log at most.
        process_key, note_process_key, String
    }
    finding! {
        /// The code of the problem that the gateway answered with.
        code, note_code, &'static str
    }
    finding! {
        /// The `businessKey` in the body, at most [`MAX_TEXT_CHARS`](crate::audit::MAX_TEXT_CHARS) long.
        business_key, note_business_key, String
    }
    finding! {
        /// The name of the message or signal in the body, as long at most.
        event, note_event, String
    }
    finding! {
        /// Why the caller does it, where the engine has no place for that; as long at most.
        reason, note_reason, String
    }
}
