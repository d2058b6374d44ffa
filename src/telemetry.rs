//! Logging: text or JSON lines on standard error.
//!
//! Nothing logs a token, a claim set, a cookie, a variable or a body at any level.

use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use access_log::with_text;

use crate::access_log::AccessLog;
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
    access: Option<AccessLog>,
}

impl Logging {
    /// From now on lines of this importance or more are written.
    pub fn set_level(&self, level: LogLevel) {
        self.wanted.set(level);
    }

    /// Who writes the lines of the access log, where they are not events as any other.
    #[must_use]
    pub fn access_log(&self) -> Option<AccessLog> {
        self.access.clone()
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
    let format = telemetry.log_format;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Somebody who embeds the gateway may log in another way already.
    let begun = match format {
        LogFormat::Text => registry.with(lines.with_ansi(colours)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // A terminal shows no more lines than somebody can read: they may take their time.
    let plain = begun.is_ok() && !(colours && format == LogFormat::Text);
    let (gather, wants) = (writer.clone(), wanted.clone());
    let access = plain.then(|| {
        AccessLog::new(move |line| {
            if wants.wants_access() {
                with_text(format, line, |text| gather.gather(text));
            }
        })
    });
    Logging {
        lines: writer,
        wanted,
        access,
    }
}
