//! How values are written: durations (`"30s"`), sizes (`"16MiB"`), and texts that parse into a type.
//!
//! A duration is a whole number and `ms`, `s`, `m` or `h`; a size a whole number and `B`, `KiB`, `MiB` or `GiB`; no blank between.
//! Zero needs no unit. Durations end at a year, so that adding one to a clock never overflows.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// What a text should have been; the error of every value of the configuration that is parsed from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Expected(pub &'static str);

/// A number of bytes, written `"64KiB"`.
///
/// ```
/// # use bpmgate::config::ByteSize;
/// let limit: ByteSize = "16MiB".parse().unwrap();
/// assert_eq!(limit.bytes(), 16 * 1024 * 1024);
/// assert_eq!(limit.to_string(), "16MiB");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Makes a size of so many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Makes a size of so many KiB (1024 bytes each).
    #[must_use]
    pub const fn from_kib(kib: u32) -> Self {
        Self(kib as u64 * 1024)
    }

    /// Makes a size of so many MiB (1024 KiB each).
    #[must_use]
    pub const fn from_mib(mib: u32) -> Self {
        Self(mib as u64 * 1024 * 1024)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Returns the number of bytes as a `usize`, or its greatest value where this platform cannot hold it.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        scaled(text, &SIZE_UNITS)
            .map(Self)
            .ok_or(Expected(Self::EXPECTED))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, &SIZE_UNITS)
    }
}

/// A type that the configuration writes as a text.
pub(super) trait Text: FromStr<Err = Expected> {
    /// What to write, for the error about something else.
    const EXPECTED: &'static str;
}

impl Text for ByteSize {
    const EXPECTED: &'static str =
        "a whole number with `B`, `KiB`, `MiB` or `GiB`, such as \"16MiB\"";
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^(0|[0-9]+(B|KiB|MiB|GiB))$" },
                { "const": 0 },
            ]
        })
    }
}

/// Durations as texts, for `#[serde(with = "units::duration")]`.
pub(super) mod duration {
    use super::{Deserializer, Duration, DurationText, Serializer, text};

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&DurationText(*duration))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        text::<D, DurationText>(deserializer).map(|text| text.0)
    }
}

/// The JSON Schema of a duration, for `#[schemars(schema_with = "units::duration_schema")]`.
pub(super) fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "string", "pattern": "^(0|[0-9]+(ms|s|m|h))$" },
            { "const": 0 },
        ]
    })
}

/// A duration that reads and prints as the configuration writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DurationText(pub(super) Duration);

impl FromStr for DurationText {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let milliseconds = scaled(text, &DURATION_UNITS).ok_or(Expected(Self::EXPECTED))?;
        let duration = Duration::from_millis(milliseconds);
        if duration > MAX_DURATION {
            return Err(Expected("at most a year (\"8760h\")"));
        }
        Ok(Self(duration))
    }
}

impl Text for DurationText {
    const EXPECTED: &'static str = "a whole number with `ms`, `s`, `m` or `h`, such as \"30s\"";
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write_scaled(f, milliseconds, &DURATION_UNITS)
    }
}

/// Reads a value that is written as a text. The integer 0 counts as the text `0`, which needs no unit.
pub(super) fn text<'de, D: Deserializer<'de>, T: Text>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(TextVisitor(PhantomData))
}

/// Values that may be left empty (`""`), for `#[serde(with = "units::optional")]`.
pub(super) mod optional {
    use super::{Deserializer, Optional, Serializer, Text, fmt, text};

    #[expect(clippy::ref_option, reason = "serde's `with` asks for it")]
    pub(in super::super) fn serialize<T: fmt::Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    pub(in super::super) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        text::<D, Optional<T>>(deserializer).map(|optional| optional.0)
    }
}

/// Reads a socket address.
pub(super) fn socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    text::<D, Parsed<SocketAddr>>(deserializer).map(|parsed| parsed.0)
}

/// A socket address that may be left empty, for `#[serde(with = "units::optional_socket_address")]`.
pub(super) mod optional_socket_address {
    use super::{Deserializer, Optional, Parsed, Serializer, SocketAddr, optional, text};

    #[expect(clippy::ref_option, reason = "serde's `with` asks for it")]
    pub(in super::super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        optional::serialize(address, serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        text::<D, Optional<Parsed<SocketAddr>>>(deserializer)
            .map(|optional| optional.0.map(|parsed| parsed.0))
    }
}

/// Networks, for `#[serde(with = "units::networks")]`; a single address is the network of itself.
pub(super) mod networks {
    use super::{Deserialize, Deserializer, IpNet, Parsed, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        networks: &[IpNet],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter().map(ToString::to_string))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let networks = Vec::<Parsed<IpNet>>::deserialize(deserializer)?;
        Ok(networks.into_iter().map(|parsed| parsed.0).collect())
    }
}

/// Reads a number of worker threads.
pub(super) fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Workers;

    impl Visitor<'_> for Workers {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number (0: one per core)")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
            usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
        }
    }

    deserializer.deserialize_u64(Workers)
}

/// Says whether a file was left out.
pub(super) fn is_no_path(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// A type of another crate, read by its own `FromStr`.
struct Parsed<T>(T);

impl FromStr for Parsed<SocketAddr> {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        text.parse().map(Self).map_err(|_| Expected(Self::EXPECTED))
    }
}

impl Text for Parsed<SocketAddr> {
    const EXPECTED: &'static str = "an IP address and a port, such as \"127.0.0.1:8000\"";
}

impl FromStr for Parsed<IpNet> {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let network = text.parse::<IpNet>().ok();
        network
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
            .map(Self)
            .ok_or(Expected(Self::EXPECTED))
    }
}

impl Text for Parsed<IpNet> {
    const EXPECTED: &'static str = "a network or an IP address, such as \"10.0.0.0/8\"";
}

impl<'de, T> Deserialize<'de> for Parsed<T>
where
    Self: Text,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)
    }
}

struct Optional<T>(Option<T>);

impl<T: Text> FromStr for Optional<T> {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(Some).map(Self)
    }
}

impl<T: Text> Text for Optional<T> {
    const EXPECTED: &'static str = T::EXPECTED;
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|Expected(expected)| E::invalid_value(Unexpected::Str(text), &expected))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let refused = || E::invalid_type(Unexpected::Signed(number), &T::EXPECTED);
        if number != 0 {
            return Err(refused());
        }
        "0".parse().map_err(|Expected(_)| refused())
    }
}

/// The number in its smallest unit; `None` where it is not written so or does not fit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Writes the number with the greatest unit that keeps it whole.
fn write_scaled(f: &mut fmt::Formatter<'_>, number: u64, units: &[(&str, u64)]) -> fmt::Result {
    let whole = |(_, factor): &&(&str, u64)| number >= *factor && number.is_multiple_of(*factor);
    let (unit, factor) = units.iter().rev().find(whole).unwrap_or(&("", 1));
    write!(f, "{}{unit}", number / factor)
}

const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_number_and_a_binary_unit() {
        let rows: [(&str, Option<u64>); 18] = [
            ("0", Some(0)),
            ("0B", Some(0)),
            ("1B", Some(1)),
            ("64KiB", Some(64 << 10)),
            ("16MiB", Some(16 << 20)),
            ("1GiB", Some(1 << 30)),
            ("17179869183GiB", Some(17_179_869_183 << 30)),
            ("17179869184GiB", None),
            ("1", None),
            ("", None),
            ("KiB", None),
            ("1 KiB", None),
            ("1KB", None),
            ("1kib", None),
            ("-1B", None),
            ("+1B", None),
            ("1.5MiB", None),
            ("１B", None),
        ];
        for (text, bytes) in rows {
            let parsed = text.parse::<ByteSize>().ok().map(ByteSize::bytes);
            assert_eq!(parsed, bytes, "{text:?}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit_up_to_a_year() {
        let rows: [(&str, Option<Duration>); 13] = [
            ("0", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("10m", Some(Duration::from_mins(10))),
            ("24h", Some(Duration::from_hours(24))),
            ("8760h", Some(MAX_DURATION)),
            ("8761h", None),
            ("18446744073709551616ms", None),
            ("5", None),
            ("5 s", None),
            ("1.5s", None),
            ("1d", None),
        ];
        for (text, duration) in rows {
            let parsed = text.parse::<DurationText>().ok().map(|text| text.0);
            assert_eq!(parsed, duration, "{text:?}");
        }
    }

    #[test]
    fn values_print_as_they_are_written() {
        for text in ["0", "1B", "1500B", "64KiB", "16MiB", "1GiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["0", "500ms", "1500ms", "5s", "10m", "24h"] {
            assert_eq!(text.parse::<DurationText>().unwrap().to_string(), text);
        }
    }
}
