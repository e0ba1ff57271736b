//! Every counter of every shard as OpenMetrics text.
//!
//! Shards count in plain integers of their own; nothing here is on a message's way. Names that end in `_now` are
//! gauges, all others counters (`_total`).

use super::plane::Plane;
use super::reply::Refusal;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tern_core::counters::Counters;

/// `GET /metrics`
pub(super) async fn metrics(State(plane): State<Arc<Plane>>) -> Result<impl IntoResponse, Refusal> {
    let text = render(plane.counters()).map_err(|error| Refusal::unavailable(error.to_string()))?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

fn render(shards: Vec<Counters>) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("tern");
    registry.register_collector(Box::new(Shards(shards)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Shards(Vec<Counters>);

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut metrics = Vec::new();
        Counters::default().each(|name, help, _| metrics.push((name, help)));
        for (name, help) in metrics {
            let gauge = name.ends_with("_now");
            let kind = if gauge {
                ConstGauge::new(0_u64).metric_type()
            } else {
                ConstCounter::new(0_u64).metric_type()
            };
            let help = help.trim();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (shard, counters) in self.0.iter().enumerate() {
                let labels = [("shard", shard.to_string())];
                let one = family.encode_family(&labels)?;
                let value = value_of(counters, name);
                if gauge {
                    ConstGauge::new(value).encode(one)?
                } else {
                    ConstCounter::new(value).encode(one)?
                }
            }
        }
        Ok(())
    }
}

fn value_of(counters: &Counters, wanted: &str) -> u64 {
    let mut found = 0;
    counters.each(|name, _, value| {
        if name == wanted {
            found = value;
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_gauges_labels_and_help() {
        let shards = vec![
            Counters { logins: 7, sessions_now: 3, ..Counters::default() },
            Counters { logins: 9, ..Counters::default() },
        ];
        let text = render(shards).unwrap();
        for line in [
            "# TYPE tern_logins counter",
            "tern_logins_total{shard=\"0\"} 7",
            "tern_logins_total{shard=\"1\"} 9",
            "# TYPE tern_sessions_now gauge",
            "tern_sessions_now{shard=\"0\"} 3",
            "# HELP tern_accepted Sockets accepted.",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
        }
    }
}
