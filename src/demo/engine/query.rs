//! The query of a list: the engine's filters, sorting and paging.

use std::borrow::Cow;
use std::cmp::Ordering;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::refusal::Refusal;

/// The parameters of a request. Unknown ones are ignored; of repeated ones the first counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(raw: &str) -> Self {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        Self(
            raw.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a flag is on; anything but `true` (in any case) is off, as Java reads it.
    pub(super) fn on(&self, name: &str) -> bool {
        self.first(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether the filter `name` is absent or names this value.
    pub(super) fn equals(&self, name: &str, value: Option<&str>) -> bool {
        self.first(name).is_none_or(|wanted| value == Some(wanted))
    }

    /// Whether the filter `name` is absent or lists this value, with commas between.
    pub(super) fn lists(&self, name: &str, value: Option<&str>) -> bool {
        self.first(name).is_none_or(|wanted| {
            value.is_some_and(|value| wanted.split(',').any(|wanted| wanted == value))
        })
    }

    /// Whether the filter `name` is absent or a pattern (SQL's `%`) that fits.
    pub(super) fn like(&self, name: &str, value: Option<&str>) -> bool {
        self.first(name)
            .is_none_or(|pattern| value.is_some_and(|value| fits(pattern, value)))
    }

    /// Whether the flag `name` is absent, or off, or the condition holds.
    pub(super) fn demands(&self, name: &str, condition: bool) -> bool {
        !self.on(name) || condition
    }

    /// Whether values are to be shown as objects; only `deserializeValues=false` says no.
    pub(super) fn deserializes(&self) -> bool {
        self.first("deserializeValues") != Some("false")
    }

    /// A whole number as a filter.
    ///
    /// # Errors
    /// 400, unlike a bad `maxResults`.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.first(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    Refusal::invalid(
                        StatusCode::BAD_REQUEST,
                        &format!(
                            "Cannot set query parameter '{name}' to value '{value}': \
                             Cannot convert value {value} to java type java.lang.Integer"
                        ),
                    )
                })
            })
            .transpose()
    }

    /// Sorts, cuts out the page asked for and renders it. `sorts` maps `sortBy` to the member to sort by.
    ///
    /// # Errors
    /// 404 for a bad number (the engine's way), 400 for bad sorting.
    pub(super) fn page<T>(
        &self,
        items: impl Iterator<Item = T>,
        sorts: &[(&str, &str)],
        render: impl Fn(T) -> Value,
    ) -> Result<Value, Refusal> {
        let skip = self.position("firstResult")?.unwrap_or(0);
        let take = self.position("maxResults")?.unwrap_or(usize::MAX);
        let Some((member, descending)) = self.sorting(sorts)? else {
            return Ok(items.skip(skip).take(take).map(render).collect());
        };
        let mut rendered: Vec<Value> = items.map(render).collect();
        rendered.sort_by(|a, b| {
            let order = compare(a.get(member), b.get(member));
            if descending { order.reverse() } else { order }
        });
        Ok(rendered.into_iter().skip(skip).take(take).collect())
    }

    fn position(&self, name: &str) -> Result<Option<usize>, Refusal> {
        self.first(name)
            .map(|value| {
                value
                    .parse::<i32>()
                    .ok()
                    .and_then(|number| usize::try_from(number).ok())
                    .ok_or_else(|| {
                        Refusal::new(
                            StatusCode::NOT_FOUND,
                            "QueryParamException",
                            "HTTP 404 Not Found",
                            None,
                        )
                    })
            })
            .transpose()
    }

    fn sorting<'s>(&self, sorts: &[(&str, &'s str)]) -> Result<Option<(&'s str, bool)>, Refusal> {
        let bad = |message: Cow<'_, str>| Refusal::invalid(StatusCode::BAD_REQUEST, &message);
        let (by, order) = match (self.first("sortBy"), self.first("sortOrder")) {
            (None, None) => return Ok(None),
            (Some(by), Some(order)) => (by, order),
            (Some(_), None) | (None, Some(_)) => {
                return Err(bad(
                    "Only a single sorting parameter specified. sortBy and sortOrder required"
                        .into(),
                ));
            }
        };
        let Some((_, member)) = sorts.iter().find(|(name, _)| *name == by) else {
            return Err(bad(format!(
                "Cannot set query parameter 'sortBy' to value '{by}'"
            )
            .into()));
        };
        match order {
            "asc" => Ok(Some((member, false))),
            "desc" => Ok(Some((member, true))),
            _ => Err(bad(format!(
                "Cannot set query parameter 'sortOrder' to value '{order}'"
            )
            .into())),
        }
    }
}

/// Numbers by size, texts by code point; null before everything, as H2 sorts it.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a
            .as_f64()
            .partial_cmp(&b.as_f64())
            .unwrap_or(Ordering::Equal),
        (a, b) => a.and_then(Value::as_str).cmp(&b.and_then(Value::as_str)),
    }
}

fn fits(pattern: &str, value: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('%') else {
        return pattern == value;
    };
    let Some(mut value) = value.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('%').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match value.split_once(part) {
            Some((_, after)) => value = after,
            None => return false,
        }
    }
    value.ends_with(end)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_fit_as_in_sql() {
        for (pattern, value, expected) in [
            ("a%", "abc", true),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("abc", "abc", true),
            ("a%c", "abcd", false),
            ("%x%", "abc", false),
            ("%", "", true),
        ] {
            assert_eq!(fits(pattern, value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn pages_are_sorted_before_they_are_cut() {
        let page = |raw: &str| {
            Query::parse(raw).page([3, 1, 2].into_iter(), &[("size", "n")], |n| json!({"n": n}))
        };
        assert_eq!(page("").unwrap(), json!([{"n": 3}, {"n": 1}, {"n": 2}]));
        assert_eq!(
            page("maxResults=1&firstResult=1").unwrap(),
            json!([{"n": 1}])
        );
        assert_eq!(
            page("sortBy=size&sortOrder=desc&maxResults=2").unwrap(),
            json!([{"n": 3}, {"n": 2}])
        );
        assert_eq!(page("maxResults=abc").unwrap_err().status, 404);
        assert_eq!(page("sortBy=nope&sortOrder=asc").unwrap_err().status, 400);
        assert_eq!(page("sortBy=size").unwrap_err().status, 400);
    }

    #[test]
    fn the_first_of_repeated_parameters_counts() {
        let query = Query::parse("a=1&a=2&b=x+y%20z&on=TRUE&&c");
        assert_eq!(
            (query.first("a"), query.first("b"), query.first("c")),
            (Some("1"), Some("x y z"), Some(""))
        );
        assert!(query.on("on") && !query.on("a"));
    }
}
