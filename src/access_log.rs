//! The line of the access log with which each request ends, and who writes it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::info;

/// What is logged of a request: never a token, a raw path or a query.
#[derive(Debug, Clone, Copy)]
pub struct AccessLine<'a> {
    /// When the answer ended.
    pub time: SystemTime,
    /// A known method, or `_OTHER`.
    pub method: &'static str,
    /// The route as the catalogue writes it, or `-`.
    pub route: &'static str,
    /// The operation's id, or `-`.
    pub operation: &'static str,
    /// The status that the client got; 0 if none.
    pub status: u16,
    /// `forwarded`, `aborted`, or the code of the gateway's own answer.
    pub outcome: &'static str,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// Of the answer's body.
    pub bytes: u64,
    /// The caller's id, or `-`.
    pub subject: &'a str,
    /// The profile that decided, or `-`.
    pub profile: &'a str,
    /// Who holds the connection.
    pub client: Option<IpAddr>,
    /// The request's id.
    pub request_id: &'a str,
    /// The trace that it belongs to.
    pub trace_id: Option<&'a str>,
}

impl AccessLine<'_> {
    /// The duration in milliseconds, to the microsecond.
    #[must_use]
    pub fn duration_ms(&self) -> f64 {
        milliseconds(self.duration)
    }

    /// As an event of `tracing`, for whoever collects those.
    pub(crate) fn trace(&self) {
        info!(
            target: "bpmgate::access",
            method = self.method,
            route = self.route,
            operation = self.operation,
            status = self.status,
            outcome = self.outcome,
            duration_ms = self.duration_ms(),
            bytes = self.bytes,
            subject = self.subject,
            profile = self.profile,
            client = self.client.map(|address| address.to_canonical()).map(tracing::field::display),
            request_id = self.request_id,
            trace_id = self.trace_id,
            "request"
        );
    }
}

/// To the microsecond, which is as much as a log needs.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}

/// Takes the lines, where they are not to be events of `tracing`: a line comes with every request. Clones share it.
#[derive(Clone)]
pub struct AccessLog(Arc<dyn Fn(&AccessLine<'_>) + Send + Sync>);

impl AccessLog {
    /// `write` is called with each line, on the thread that served the request.
    pub fn new(write: impl Fn(&AccessLine<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    pub(crate) fn write(&self, line: &AccessLine<'_>) {
        (self.0)(line);
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}
