//! How what is counted is shown: every family is declared once, in [`FAMILIES`], which `docs/metrics.md` is checked against.

use std::fmt;
use std::time::UNIX_EPOCH;

use http::HeaderValue;
use http::header::GetAll;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::engine::Nodes;
use crate::engine::nodes::BreakerState;
use crate::metrics::{Metrics, Requests};
use crate::rate_limit::RateLimits;
use crate::server::History;
use crate::token::{IssuerKeys, Verifier};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// What `Accept` names: `OpenMetrics` where it stands there at all, as scrapers that know it prefer it.
    pub(crate) fn asked_for(accept: &GetAll<'_, HeaderValue>) -> Self {
        let names = |value: &HeaderValue| {
            value.to_str().is_ok_and(|text| {
                text.split(',').any(|range| {
                    let name = range.split(';').next().unwrap_or_default();
                    name.trim().eq_ignore_ascii_case(OPEN_METRICS)
                })
            })
        };
        if accept.iter().any(names) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Writes all metrics.
pub(crate) fn exposition(
    metrics: &Metrics,
    verifier: &Verifier,
    rate_limits: &RateLimits,
    nodes: &Nodes,
    loads: &History,
    format: Format,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        metrics: metrics.clone(),
        verifier: verifier.clone(),
        rate_limits: rate_limits.clone(),
        nodes: nodes.clone(),
        loads: loads.clone(),
    }));
    let mut written = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    verifier: Verifier,
    rate_limits: RateLimits,
    nodes: Nodes,
    loads: History,
}

/// A metric family: name (of a counter without `_total`), type, labels, help, and what it holds now.
struct Family {
    name: &'static str,
    kind: MetricType,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reference"))]
    labels: &'static str,
    help: &'static str,
    write: fn(&Scrape, &mut MetricEncoder<'_>) -> fmt::Result,
}

const fn family(
    name: &'static str,
    kind: MetricType,
    labels: &'static str,
    help: &'static str,
    write: fn(&Scrape, &mut MetricEncoder<'_>) -> fmt::Result,
) -> Family {
    Family {
        name,
        kind,
        labels,
        help,
        write,
    }
}

const FAMILIES: [Family; 32] = [
    family(
        "bpmgate_requests",
        MetricType::Counter,
        "operation, group, method, status, outcome",
        "Requests that have ended",
        |scrape, encoder| {
            for requests in scrape.metrics.requests() {
                let Requests {
                    operation,
                    group,
                    method,
                    status,
                    outcome,
                    count,
                } = requests;
                let labels = [
                    ("operation", operation),
                    ("group", group),
                    ("method", method),
                    ("status", status),
                    ("outcome", outcome),
                ];
                counter(&mut encoder.encode_family(&labels)?, count)?;
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_requests_in_flight",
        MetricType::Gauge,
        "",
        "Requests whose answers have not ended yet",
        |scrape, encoder| encoder.encode_gauge(&scrape.metrics.in_flight()),
    ),
    family(
        "bpmgate_request_duration_seconds",
        MetricType::Histogram,
        "kind",
        "How long requests took: the whole until the answer's end, the engine until its answer's head, and the gateway's own part of the time until its answer's head",
        |scrape, encoder| {
            for (kind, histogram) in scrape.metrics.durations() {
                let (sum, buckets) = histogram.read();
                let count = buckets.iter().map(|(_, count)| count).sum();
                encoder
                    .encode_family(&[("kind", kind)])?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_request_body_bytes",
        MetricType::Counter,
        "",
        "Bytes of requests' bodies that came from clients",
        |scrape, encoder| counter(encoder, scrape.metrics.request_bytes()),
    ),
    family(
        "bpmgate_answer_body_bytes",
        MetricType::Counter,
        "",
        "Bytes of answers' bodies that went to clients",
        |scrape, encoder| counter(encoder, scrape.metrics.answer_bytes()),
    ),
    family(
        "bpmgate_engine_retries",
        MetricType::Counter,
        "",
        "Tries beyond the first to reach the engine",
        |scrape, encoder| counter(encoder, scrape.metrics.retries()),
    ),
    family(
        "bpmgate_engine_retries_withheld",
        MetricType::Counter,
        "",
        "Requests that were not sent again, as the budget of retries was used up",
        |scrape, encoder| counter(encoder, scrape.metrics.retries_withheld()),
    ),
    family(
        "bpmgate_engine_requests",
        MetricType::Counter,
        "node",
        "Tries to send a request to a node of the engine",
        |scrape, encoder| {
            for node in scrape.nodes.figures() {
                let labels = [("node", node.name)];
                counter(&mut encoder.encode_family(&labels)?, node.requests)?;
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_engine_connections",
        MetricType::Gauge,
        "node, state",
        "Connections to a node of the engine: busy, or idle until the next request",
        |scrape, encoder| {
            for node in scrape.nodes.figures() {
                let busy = node.open.saturating_sub(node.idle);
                for (state, count) in [("busy", busy), ("idle", node.idle)] {
                    let labels = [("node", node.name), ("state", state)];
                    encoder.encode_family(&labels)?.encode_gauge(&count)?;
                }
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_engine_node_up",
        MetricType::Gauge,
        "node",
        "Whether a node of the engine passed its last health check; absent before the first",
        |scrape, encoder| {
            for node in scrape.nodes.figures() {
                if let Some(is_up) = node.is_up {
                    encoder
                        .encode_family(&[("node", node.name)])?
                        .encode_gauge(&u32::from(is_up))?;
                }
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_engine_breaker",
        MetricType::Gauge,
        "node, state",
        "1 for the state that a node's breaker is in: closed, half_open or open; else 0",
        |scrape, encoder| {
            for node in scrape.nodes.figures() {
                for state in BreakerState::ALL {
                    let labels = [("node", node.name), ("state", state.as_str())];
                    let is_so = u32::from(node.breaker == state);
                    encoder.encode_family(&labels)?.encode_gauge(&is_so)?;
                }
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_requests_queued",
        MetricType::Gauge,
        "",
        "Requests that wait to be let in, as too many are in flight",
        |scrape, encoder| encoder.encode_gauge(&scrape.metrics.requests_queued()),
    ),
    family(
        "bpmgate_rate_limited",
        MetricType::Counter,
        "limit",
        "Requests that a rate limit of the configuration refused, by its name",
        |scrape, encoder| {
            for limit in scrape.rate_limits.iter() {
                let labels = [("limit", limit.name())];
                counter(&mut encoder.encode_family(&labels)?, limit.refused())?;
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_long_polls_waiting",
        MetricType::Gauge,
        "",
        "Requests for external tasks (fetchAndLock) that wait for the engine",
        |scrape, encoder| encoder.encode_gauge(&scrape.metrics.long_polls()),
    ),
    family(
        "bpmgate_rewritten_bodies",
        MetricType::Counter,
        "",
        "Bodies that went to the engine otherwise than they came",
        |scrape, encoder| counter(encoder, scrape.metrics.rewritten_bodies()),
    ),
    family(
        "bpmgate_starts",
        MetricType::Counter,
        "",
        "Requests that started process or case instances",
        |scrape, encoder| counter(encoder, scrape.metrics.starts()),
    ),
    family(
        "bpmgate_completions",
        MetricType::Counter,
        "",
        "Requests that completed a task or an external task",
        |scrape, encoder| counter(encoder, scrape.metrics.completions()),
    ),
    family(
        "bpmgate_token_cache_lookups",
        MetricType::Counter,
        "result",
        "Tokens that were looked up in the cache: hit or miss",
        |scrape, encoder| {
            let (hits, misses) = scrape.verifier.cache_lookups();
            counter(&mut encoder.encode_family(&[("result", "hit")])?, hits)?;
            counter(&mut encoder.encode_family(&[("result", "miss")])?, misses)
        },
    ),
    family(
        "bpmgate_jwks_refreshes",
        MetricType::Counter,
        "issuer, result",
        "Fetches of an issuer's keys that have ended: success or failure",
        |scrape, encoder| {
            for (issuer, keys) in scrape.live() {
                let status = keys.status();
                let succeeded = status.fetches.saturating_sub(status.failures);
                for (result, count) in [("success", succeeded), ("failure", status.failures)] {
                    let labels = [("issuer", issuer), ("result", result)];
                    counter(&mut encoder.encode_family(&labels)?, count)?;
                }
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_jwks_age_seconds",
        MetricType::Gauge,
        "issuer",
        "Time since an issuer's keys were fetched last; absent before the first time",
        |scrape, encoder| {
            for (issuer, keys) in scrape.live() {
                if let Some(age) = keys.status().age {
                    encoder
                        .encode_family(&[("issuer", issuer)])?
                        .encode_gauge(&age.as_secs_f64())?;
                }
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_issuer_keys",
        MetricType::Gauge,
        "issuer",
        "Keys of an issuer that can be used now",
        |scrape, encoder| {
            for (issuer, keys) in scrape.verifier.issuers() {
                let count = keys.current().map_or(0, |keys| keys.len());
                encoder
                    .encode_family(&[("issuer", issuer.as_str())])?
                    .encode_gauge(&count)?;
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_config_reloads",
        MetricType::Counter,
        "result",
        "How often the configuration was loaded again: success or failure",
        |scrape, encoder| {
            let History {
                succeeded, failed, ..
            } = scrape.loads;
            counter(
                &mut encoder.encode_family(&[("result", "success")])?,
                succeeded,
            )?;
            counter(
                &mut encoder.encode_family(&[("result", "failure")])?,
                failed,
            )
        },
    ),
    family(
        "bpmgate_config_last_load_success_timestamp_seconds",
        MetricType::Gauge,
        "",
        "When the configuration that is in force was loaded, in Unix time",
        |scrape, encoder| {
            let since = scrape.loads.loaded_at.duration_since(UNIX_EPOCH);
            encoder.encode_gauge(&since.unwrap_or_default().as_secs_f64())
        },
    ),
    family(
        "bpmgate_config_last_load_successful",
        MetricType::Gauge,
        "",
        "Whether the configuration could be loaded when it was tried last: 1, or 0 while an earlier one is in force",
        |scrape, encoder| encoder.encode_gauge(&i64::from(scrape.loads.failure.is_none())),
    ),
    family(
        "bpmgate_trace_spans",
        MetricType::Counter,
        "result",
        "Spans that had ended: sent, dropped as too many waited, or failed to be sent",
        |scrape, encoder| {
            for (result, count) in scrape.metrics.spans() {
                counter(&mut encoder.encode_family(&[("result", result)])?, count)?;
            }
            Ok(())
        },
    ),
    family(
        "bpmgate_build_info",
        MetricType::Gauge,
        "version",
        "Always 1; the label says which version runs",
        |_, encoder| {
            let labels = [("version", env!("CARGO_PKG_VERSION"))];
            encoder.encode_family(&labels)?.encode_gauge(&1_u32)
        },
    ),
    family(
        "process_start_time_seconds",
        MetricType::Gauge,
        "",
        "When the process started, in Unix time; Linux only, as all of process",
        |_, encoder| match process::start_time() {
            Some(seconds) => encoder.encode_gauge(&seconds),
            None => Ok(()),
        },
    ),
    family(
        "process_resident_memory_bytes",
        MetricType::Gauge,
        "",
        "Memory of the process",
        |_, encoder| match process::resident_bytes() {
            Some(bytes) => encoder.encode_gauge(&bytes),
            None => Ok(()),
        },
    ),
    family(
        "process_open_fds",
        MetricType::Gauge,
        "",
        "Open file descriptors",
        |_, encoder| match process::open_fds() {
            Some(open) => encoder.encode_gauge(&open),
            None => Ok(()),
        },
    ),
    family(
        "process_max_fds",
        MetricType::Gauge,
        "",
        "File descriptors that may be open",
        |_, encoder| match process::max_fds() {
            Some(most) => encoder.encode_gauge(&most),
            None => Ok(()),
        },
    ),
    family(
        "process_threads",
        MetricType::Gauge,
        "",
        "Threads of the process",
        |_, encoder| match process::threads() {
            Some(threads) => encoder.encode_gauge(&threads),
            None => Ok(()),
        },
    ),
    family(
        "process_cpu_seconds",
        MetricType::Counter,
        "",
        "Time on processors, in user and system mode",
        |_, encoder| match process::cpu_seconds() {
            Some(seconds) => encoder.encode_counter::<NoLabelSet, f64, f64>(&seconds, None),
            None => Ok(()),
        },
    ),
];

impl Scrape {
    /// The issuers whose keys are fetched.
    fn live(&self) -> impl Iterator<Item = (&str, &crate::token::refresh::Keys)> {
        self.verifier
            .issuers()
            .filter_map(|(issuer, keys)| match keys {
                IssuerKeys::Live(keys) => Some((issuer.as_str(), keys)),
                IssuerKeys::Fixed(_) => None,
            })
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &FAMILIES {
            let mut encoder =
                encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            (family.write)(self, &mut encoder)?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut MetricEncoder<'_>, count: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&count, None)
}

/// What the kernel says of this process (proc(5)); nothing where there is no `/proc`.
mod process {
    use std::fs;

    pub(super) fn resident_bytes() -> Option<u64> {
        Some(status("VmRSS:")? * 1024)
    }

    pub(super) fn threads() -> Option<u64> {
        status("Threads:")
    }

    pub(super) fn open_fds() -> Option<usize> {
        // The one that reads the folder is not counted.
        Some(
            fs::read_dir("/proc/self/fd")
                .ok()?
                .count()
                .saturating_sub(1),
        )
    }

    pub(super) fn max_fds() -> Option<u64> {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    pub(super) fn cpu_seconds() -> Option<f64> {
        Some((ticks(14)? + ticks(15)?) / TICKS)
    }

    pub(super) fn start_time() -> Option<f64> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        let booted: f64 = booted.trim().parse().ok()?;
        Some(booted + ticks(22)? / TICKS)
    }

    /// `USER_HZ`, which is the same on every Linux of today.
    const TICKS: f64 = 100.0;

    /// A field of `/proc/self/stat`, by its number in proc(5), from 3 on.
    fn ticks(field: usize) -> Option<f64> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses, the second, may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let place = field.checked_sub(3)?;
        fields.split_whitespace().nth(place)?.parse().ok()
    }

    fn status(name: &str) -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::server::Reloads;

    use super::*;
    use crate::token::{Issuer, KeySet};

    fn no_issuers() -> Verifier {
        Verifier::new(Vec::<(Issuer, KeySet)>::new()).unwrap()
    }

    /// The table of docs/metrics.md.
    fn reference() -> String {
        let rows = FAMILIES.iter().map(|family| {
            let (suffix, kind) = match family.kind {
                MetricType::Counter => ("_total", "counter"),
                MetricType::Histogram => ("", "histogram"),
                MetricType::Gauge | MetricType::Info | MetricType::Unknown => ("", "gauge"),
            };
            let Family {
                name, labels, help, ..
            } = family;
            format!("| `{name}{suffix}` | {kind} | {labels} | {help}. |\n")
        });
        format!(
            "| metric | type | labels | what |\n|---|---|---|---|\n{}",
            rows.collect::<String>()
        )
    }

    #[test]
    fn every_metric_is_documented_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once("| metric |").unwrap();
        let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
        let wanted = format!("{before}{}\n{after}", reference());
        if std::env::var_os("BPMGATE_BLESS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        } else {
            assert_eq!(text, wanted, "BPMGATE_BLESS=1 writes it");
        }
    }

    #[test]
    fn open_metrics_is_given_to_those_who_name_it() {
        for (accept, want) in [
            (vec![], Format::Text),
            (vec!["*/*"], Format::Text),
            (vec!["text/plain;version=0.0.4"], Format::Text),
            (
                vec!["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1"],
                Format::OpenMetrics,
            ),
            (
                vec!["text/plain", "Application/OpenMetrics-Text"],
                Format::OpenMetrics,
            ),
        ] {
            let mut headers = http::HeaderMap::new();
            for value in &accept {
                headers.append("accept", HeaderValue::from_static(value));
            }
            assert_eq!(
                Format::asked_for(&headers.get_all("accept")),
                want,
                "{accept:?}"
            );
        }
    }

    #[test]
    fn both_formats_have_every_family_and_open_metrics_its_end() {
        for format in [Format::Text, Format::OpenMetrics] {
            let text = exposition(
                &Metrics::default(),
                &no_issuers(),
                &RateLimits::default(),
                &Nodes::default(),
                &Reloads::default().history(),
                format,
            )
            .unwrap();
            for family in &FAMILIES {
                assert!(
                    text.contains(&format!("# TYPE {}", family.name)),
                    "{}",
                    family.name
                );
            }
            assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_of_this_process() {
        assert!(process::resident_bytes().unwrap() > 100_000);
        assert!(process::open_fds().unwrap() > 2);
        assert!(process::max_fds().unwrap() > 2);
        assert!(process::threads().unwrap() > 0);
        assert!(process::cpu_seconds().unwrap() >= 0.0);
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - process::start_time().unwrap();
        // The kernel's clock and ours may differ a little.
        assert!((-10.0..86_400.0).contains(&age), "{age}");
    }
}
