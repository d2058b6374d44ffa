//! The lines of the access log as text, written without the machinery for any line: they come with every request.
//!
//! They look as those that `tracing_subscriber::fmt` writes, which take eight times as long.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::access_log::AccessLine;
use crate::config::LogFormat;
use crate::json_string::{self, push_plain};

/// Gives `write` the line as text, its end included.
pub fn with_text(format: LogFormat, line: &AccessLine<'_>, write: impl FnOnce(&[u8])) {
    SCRATCH.with_borrow_mut(|scratch| {
        let Scratch { clock, text } = scratch;
        text.clear();
        let stamp = clock.at(line.time);
        match format {
            LogFormat::Text => {
                text.push_str(stamp);
                text.push_str("  INFO request");
                fields(line, &mut Text(text));
            }
            LogFormat::Json => {
                text.push_str("{\"timestamp\":\"");
                text.push_str(stamp);
                text.push_str("\",\"level\":\"INFO\",\"message\":\"request\"");
                fields(line, &mut Json(text));
                text.push('}');
            }
        }
        text.push('\n');
        write(text.as_bytes());
    });
}

fn fields(line: &AccessLine<'_>, to: &mut impl Fields) {
    to.plain("method", line.method);
    to.plain("route", line.route);
    to.plain("operation", line.operation);
    push_number(to.name("status"), line.status);
    to.plain("outcome", line.outcome);
    push_decimal(to.name("duration_ms"), line.duration_ms());
    push_number(to.name("bytes"), line.bytes);
    to.text("subject", line.subject);
    to.text("profile", line.profile);
    if let Some(client) = line.client {
        to.address("client", client);
    }
    to.text("request_id", line.request_id);
    if let Some(trace_id) = line.trace_id {
        to.text("trace_id", trace_id);
    }
}

/// What a thread uses again for its next line.
struct Scratch {
    clock: Clock,
    text: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { clock: Clock { second: u64::MAX, text: String::new() }, text: String::new() })
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
            let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + since);
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
    text.push_str(str::from_utf8(&digits).unwrap_or_default());
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

/// An IPv4 address that came over IPv6 is what it is; four times as fast as by its `Display`.
fn push_address(text: &mut String, address: IpAddr) {
    let IpAddr::V4(address) = address.to_canonical() else {
        let _ = write!(text, "{address}");
        return;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        push_number(text, octet);
    }
}

/// How a line's fields are written. Their names are our own, and plain.
trait Fields {
    /// What follows is the value of this one.
    fn name(&mut self, name: &'static str) -> &mut String;
    fn text(&mut self, name: &'static str, value: &str);
    /// A text of our own, which has nothing to escape.
    fn plain(&mut self, name: &'static str, value: &'static str) {
        push_plain(self.name(name), value);
    }
    fn address(&mut self, name: &'static str, value: IpAddr);
}

/// ` name=value`, as in `fmt`'s text.
struct Text<'a>(&'a mut String);

impl Fields for Text<'_> {
    #[inline]
    fn name(&mut self, name: &'static str) -> &mut String {
        self.0.push(' ');
        self.0.push_str(name);
        self.0.push('=');
        self.0
    }

    #[inline]
    fn text(&mut self, name: &'static str, value: &str) {
        let text = self.name(name);
        // Looked at to the end, as that is done for many bytes at once.
        let plain = |byte: u8| byte.wrapping_sub(b' ') < 95 && byte != b'"' && byte != b'\\';
        if value.bytes().fold(true, |all, byte| all & plain(byte)) {
            push_plain(text, value);
        } else {
            let _ = write!(text, "{value:?}");
        }
    }

    fn address(&mut self, name: &'static str, value: IpAddr) {
        push_address(self.name(name), value);
    }
}

/// `,"name":value`.
struct Json<'a>(&'a mut String);

impl Fields for Json<'_> {
    #[inline]
    fn name(&mut self, name: &'static str) -> &mut String {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
        self.0
    }

    #[inline]
    fn text(&mut self, name: &'static str, value: &str) {
        json_string::push(self.name(name), value);
    }

    fn address(&mut self, name: &'static str, value: IpAddr) {
        let text = self.name(name);
        text.push('"');
        push_address(text, value);
        text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line as `fmt` writes it, and as it is written here; without their times.
    fn both(format: LogFormat, line: &AccessLine<'_>) -> [String; 2] {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = fmt::layer()
            .with_writer(move || writer.clone())
            .with_target(false)
            .with_ansi(false);
        let registry = tracing_subscriber::registry();
        match format {
            LogFormat::Text => {
                tracing::subscriber::with_default(registry.with(layer), || line.trace());
            }
            LogFormat::Json => {
                let layer = layer.json().flatten_event(true);
                tracing::subscriber::with_default(registry.with(layer), || line.trace());
            }
        }
        let theirs = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let mut ours = String::new();
        with_text(format, line, |text| {
            ours = String::from_utf8(text.to_vec()).unwrap();
        });
        let digits = "2026-11-28T03:38:09.027800Z".len();
        let begin = if format == LogFormat::Json {
            "{\"timestamp\":\"".len()
        } else {
            0
        };
        [theirs, ours].map(|mut line| {
            line.replace_range(begin..begin + digits, "");
            line
        })
    }

    #[test]
    fn lines_are_those_of_fmt() {
        let plain = AccessLine {
            time: SystemTime::now(),
            method: "GET",
            route: "/task",
            operation: "getTasks",
            status: 200,
            outcome: "forwarded",
            duration: Duration::from_micros(1_250),
            bytes: 1024,
            subject: "alice",
            profile: "user",
            client: Some(IpAddr::from([192, 0, 2, 7])),
            request_id: "abc",
            trace_id: None,
        };
        let odd = AccessLine {
            subject: "a\"b\\c\n\u{1}\u{7f}\u{fc}\u{2028}",
            profile: "",
            client: Some("2001:db8::1".parse().unwrap()),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            duration: Duration::MAX,
            status: 0,
            ..plain
        };
        let mapped = AccessLine {
            client: Some("::ffff:192.0.2.7".parse().unwrap()),
            duration: Duration::ZERO,
            ..plain
        };
        let nobody = AccessLine {
            client: None,
            ..plain
        };
        for line in [plain, odd, mapped, nobody] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let [theirs, ours] = both(format, &line);
                assert_eq!(ours, theirs);
            }
        }
    }

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
            let now = UNIX_EPOCH + Duration::from_micros(micros);
            let want = humantime::format_rfc3339_micros(now).to_string();
            assert_eq!(clock.at(now), want);
        }
    }
}
