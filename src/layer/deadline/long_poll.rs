//! How long the engine may hold a long poll: `asyncResponseTimeout` in its body, which is read as it passes.
//!
//! The engine takes a number or the text of one, and the last of several. What this cannot read, it is given the longest time for: a wrong
//! guess in the other direction would end polls that are well.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// What has been seen of the body so far, up to [`MAX_BYTES`]; nothing from there on.
#[derive(Debug, Default)]
pub(super) struct Seen(Option<Vec<u8>>);

impl Seen {
    pub(super) fn nothing() -> Self {
        Self(Some(Vec::new()))
    }

    pub(super) fn add(&mut self, data: &Bytes) {
        self.0 = self.0.take().and_then(|mut seen| {
            let fits = seen.len().saturating_add(data.len()) <= MAX_BYTES;
            fits.then(|| {
                seen.extend_from_slice(data);
                seen
            })
        });
    }

    /// How long the engine may hold a poll of this body, which is whole.
    pub(super) fn wait(&self) -> Duration {
        self.0.as_deref().and_then(wait).unwrap_or(LONGEST_POLL)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Poll {
    async_response_timeout: Option<Value>,
}

fn wait(body: &[u8]) -> Option<Duration> {
    let Poll {
        async_response_timeout: found,
    } = serde_json::from_slice(body).ok()?;
    let milliseconds = match found {
        None => Some(0),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    // The engine refuses more.
    milliseconds.map(|milliseconds| Duration::from_millis(milliseconds).min(LONGEST_POLL))
}

/// A worker's topics and their variables are far shorter.
const MAX_BYTES: usize = 16 * 1024;

/// The engine refuses an `asyncResponseTimeout` over this.
pub(super) const LONGEST_POLL: Duration = Duration::from_mins(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_may_wait_is_in_the_body_and_else_the_longest() {
        let long = format!("{{\"topics\":[{}]}}", "0,".repeat(MAX_BYTES));
        for (body, want) in [
            ("{}", Duration::ZERO),
            (r#"{"asyncResponseTimeout":0}"#, Duration::ZERO),
            (r#"{"asyncResponseTimeout":null}"#, Duration::ZERO),
            (
                r#"{"workerId":"w","topics":[{"asyncResponseTimeout":7}],"asyncResponseTimeout":1000}"#,
                Duration::from_secs(1),
            ),
            (r#"{"asyncResponseTimeout":"1000"}"#, Duration::from_secs(1)),
            (r#"{"asyncResponseTimeout":1800000}"#, LONGEST_POLL),
            (r#"{"asyncResponseTimeout":18000000}"#, LONGEST_POLL),
            (r#"{"asyncResponseTimeout":-1}"#, LONGEST_POLL),
            (r#"{"asyncResponseTimeout":1.5}"#, LONGEST_POLL),
            (
                r#"{"asyncResponseTimeout":1,"asyncResponseTimeout":2}"#,
                LONGEST_POLL,
            ),
            ("{\"asyncResponseTimeout\":1", LONGEST_POLL),
            (&long, LONGEST_POLL),
        ] {
            let mut seen = Seen::nothing();
            let (first, second) = body.split_at(1);
            for piece in [first, second] {
                seen.add(&Bytes::copy_from_slice(piece.as_bytes()));
            }
            assert_eq!(seen.wait(), want, "{body:.100}");
        }
    }
}
