//! The lines of the access log, written without the machinery for any line: they come with every request.
//!
//! They look as those that `tracing_subscriber::fmt` writes, which take eight times as long.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::config::LogFormat;

/// The target of the access log.
const TARGET: &str = "bpmgate::access";

/// Whether this is for the access log.
pub(super) fn is_access(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET
}

/// Gives the lines of the access log to a function; what is logged beside is left to other layers.
///
/// # Examples
/// ```
/// use bpmgate::{config::LogFormat, telemetry::AccessLog};
/// use tracing_subscriber::{layer::SubscriberExt, registry};
///
/// let lines = AccessLog::new(LogFormat::Json, |line: &[u8]| print!("{}", String::from_utf8_lossy(line)));
/// let subscriber = registry().with(lines);
/// ```
pub struct AccessLog<W> {
    format: LogFormat,
    write: W,
}

impl<W: Fn(&[u8])> AccessLog<W> {
    /// `write` is called with one line at a time, its end included.
    pub fn new(format: LogFormat, write: W) -> Self {
        Self { format, write }
    }
}

impl<W> Debug for AccessLog<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl<S: Subscriber, W: Fn(&[u8]) + 'static> Layer<S> for AccessLog<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !is_access(event.metadata()) {
            return;
        }
        LINE.with_borrow_mut(|scratch| {
            let Scratch { clock, line } = scratch;
            line.clear();
            let level = event.metadata().level().as_str();
            let stamp = clock.at(SystemTime::now());
            match self.format {
                LogFormat::Text => {
                    line.extend([stamp, " ", if level.len() < 5 { " " } else { "" }, level]);
                    event.record(&mut Text(line));
                }
                LogFormat::Json => {
                    line.extend(["{\"timestamp\":\"", stamp, "\",\"level\":\"", level, "\""]);
                    event.record(&mut Json(line));
                    line.push('}');
                }
            }
            line.push('\n');
            (self.write)(line.as_bytes());
        });
    }
}

/// What a thread uses again for its next line.
struct Scratch {
    clock: Clock,
    line: String,
}

thread_local! {
    static LINE: RefCell<Scratch> = const {
        RefCell::new(Scratch { clock: Clock { second: u64::MAX, text: String::new() }, line: String::new() })
    };
}

/// Writes the date once a second.
struct Clock {
    second: u64,
    /// `2026-11-28T03:38:09.027800Z`; what follows the point is written each time.
    text: String,
}

impl Clock {
    fn at(&mut self, now: SystemTime) -> &str {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text.clear();
            let date = humantime::format_rfc3339_seconds(now);
            // A String takes whatever is written.
            let _ = write!(self.text, "{date}");
        }
        self.text.truncate("2026-11-28T03:38:09".len());
        self.text.push('.');
        push_digits::<6>(&mut self.text, since.subsec_micros());
        self.text.push('Z');
        &self.text
    }
}

/// The last `N` decimal digits.
fn push_digits<const N: usize>(text: &mut String, mut number: u32) {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    text.extend(digits.map(char::from));
}

fn push_number(text: &mut String, number: impl itoa::Integer) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// A number of three decimals at most, as durations are, is written without a search for its shortest form.
fn push_decimal(text: &mut String, number: f64) {
    let thousandths = (number * 1000.0).round();
    let is_exact = (thousandths / 1000.0).to_bits() == number.to_bits();
    if !is_exact || !(0.0..=f64::from(u32::MAX)).contains(&thousandths) {
        let _ = write!(text, "{number:?}");
        return;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in the range of a u32"
    )]
    let thousandths = thousandths as u32;
    push_number(text, thousandths / 1000);
    text.push('.');
    push_digits::<3>(text, thousandths % 1000);
    let zeros = text
        .bytes()
        .rev()
        .take_while(|digit| *digit == b'0')
        .count();
    text.truncate(text.len() - zeros.min(2));
}

fn push_quoted(text: &mut String, value: &str) {
    text.push('"');
    text.push_str(value);
    text.push('"');
}

/// ` name=value`, as in `fmt`'s text.
struct Text<'a>(&'a mut String);

impl Text<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push(' ');
        if field.name() != "message" {
            self.0.push_str(field.name());
            self.0.push('=');
        }
    }
}

impl Visit for Text<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        // Looked at to the end, as that is done for many bytes at once.
        let plain = |byte: u8| byte.wrapping_sub(b' ') < 95 && byte != b'"' && byte != b'\\';
        if value.bytes().fold(true, |all, byte| all & plain(byte)) {
            push_quoted(self.0, value);
        } else {
            let _ = write!(self.0, "{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        push_number(self.0, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field);
        push_decimal(self.0, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field);
        let _ = write!(self.0, "{value:?}");
    }
}

/// `,"name":value`.
struct Json<'a>(&'a mut String);

impl Json<'_> {
    /// The fields' names are our own, and plain.
    fn name(&mut self, field: &Field) {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }
}

impl Visit for Json<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        if value.bytes().fold(true, |all, byte| all & plain(byte)) {
            push_quoted(self.0, value);
        } else {
            self.0.push_str(&serde_json::Value::from(value).to_string());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        push_number(self.0, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field);
        push_decimal(self.0, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_as_their_shortest_form() {
        for number in [
            0.0,
            0.001,
            0.5,
            0.51,
            0.512,
            1.0,
            12.0,
            100.0,
            4_294_967.295,
            0.0005,
            1e9,
            1e300,
        ] {
            let mut text = String::new();
            push_decimal(&mut text, number);
            assert_eq!(text, format!("{number:?}"));
        }
    }

    #[test]
    fn the_clock_goes_on() {
        let mut clock = Clock {
            second: u64::MAX,
            text: String::new(),
        };
        for micros in [
            0,
            1,
            999_999,
            1_000_000,
            86_400_000_000,
            1_795_836_289_027_800,
        ] {
            let now = UNIX_EPOCH + std::time::Duration::from_micros(micros);
            let want = humantime::format_rfc3339_micros(now).to_string();
            assert_eq!(clock.at(now), want);
        }
    }
}
