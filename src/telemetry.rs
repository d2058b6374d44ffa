//! Logging: text or JSON lines on standard error.
//!
//! Nothing logs a token, a claim set, a cookie, a variable or a body at any level.

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub use access_log::AccessLog;
use access_log::is_access;

use crate::config::{LogFormat, LogLevel, Telemetry};
use level::Wanted;

mod access_log;
mod level;
mod lines;
pub(crate) mod metrics;

/// Writes the last lines when it is dropped.
#[derive(Debug)]
pub struct Logging {
    lines: lines::Lines,
    wanted: Wanted,
}

impl Logging {
    /// From now on lines of this importance or more are written.
    pub fn set_level(&self, level: LogLevel) {
        self.wanted.set(level);
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.lines.flush();
    }
}

/// Starts logging for the whole process, until what is returned is dropped; a second call changes nothing.
#[must_use]
pub fn start(telemetry: &Telemetry) -> Logging {
    let wanted = Wanted::new(telemetry.log_level);
    let writer = lines::Lines::start();
    let lines = fmt::layer().with_writer(writer.clone()).with_target(false);
    let registry = tracing_subscriber::registry().with(wanted.clone());
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A terminal shows no more lines than somebody can read: they may take their time.
    let plain = !(colours && telemetry.log_format == LogFormat::Text);
    let gather = writer.clone();
    let access =
        plain.then(|| AccessLog::new(telemetry.log_format, move |line| gather.gather(line)));
    let others = filter_fn(move |metadata| !(plain && is_access(metadata)));
    // Somebody who embeds the gateway may log in another way already.
    let _ = match telemetry.log_format {
        LogFormat::Text => registry
            .with(lines.with_ansi(colours).with_filter(others))
            .with(access)
            .try_init(),
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_filter(others))
            .with(access)
            .try_init(),
    };
    Logging {
        lines: writer,
        wanted,
    }
}
