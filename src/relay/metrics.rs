//! Metrics: the counters of a relay as Prometheus reads them, in OpenMetrics' text.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Stats;
use super::stats::Mark;
use crate::sync::lock;

/// What `text` is, for whoever asks.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of latencies in milliseconds: fine where ceilings usually are.
const LATENCY_MS: [usize; 15] = [10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 5000];

/// All counters.
pub(super) struct Metrics(Registry);

impl Metrics {
    pub fn new(stats: Arc<Stats>) -> Metrics {
        let mut registry = Registry::with_prefix("hasn");
        registry.register_collector(Box::new(Counters(stats)));
        Metrics(registry)
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.0).expect("a String takes everything");
        text
    }
}

struct Counters(Arc<Stats>);

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}

/// Label and value of one of a family; a family of one has neither.
type Of<'a, T> = (Option<(&'static str, &'a str)>, T);

impl Collector for Counters {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let stats = &self.0;
        let now = stats.snapshot(&mut Mark::default());
        let mut out = Out(encoder);
        let one = |value: u64| [(None, value)];
        out.counters("frames_decoded", "Frames that came out of the decoder", None, &one(now.decoded))?;
        out.counters("frames_encoded", "Frames that went into the encoder", None, &one(now.encoded))?;
        let rungs: Vec<Of<u64>> =
            now.ladder.iter().map(|rung| (Some(("model", rung.model.as_str())), rung.frames)).collect();
        out.counters("frames_upscaled", "Frames made larger, by network", None, &rungs)?;
        let duplicated = [(Some(("cause", "loss")), now.duplicated)];
        out.counters("frames_duplicated", "Frames duplicated in place of missing ones", None, &duplicated)?;
        let dropped = [("late", now.dropped_late), ("past", now.dropped_past), ("full", now.dropped_full)];
        let dropped = dropped.map(|(cause, count)| (Some(("cause", cause)), count));
        out.counters(
            "frames_dropped",
            "Frames dropped: no network was fast enough; ready after the output had \
                      gone on; no room before the network",
            None,
            &dropped,
        )?;
        let busy = ["decode", "upscale", "encode"].iter().zip(now.busy_s);
        let busy: Vec<Of<f64>> = busy.map(|(&stage, seconds)| (Some(("stage", stage)), seconds)).collect();
        out.counters("stage_busy", "Time that stages worked", Some(Unit::Seconds), &busy)?;
        let lag = |ms: u64| ms as f64 * 1e-3;
        let queues = || {
            let before = [("upscale", &now.waiting)].into_iter();
            before.chain(now.sinks.iter().map(|sink| (sink.name.as_str(), &sink.waiting)))
        };
        let ages: Vec<Of<f64>> = queues().map(|(q, at)| (Some(("queue", q)), lag(at.age_ms))).collect();
        out.gauges("queue_age", "Age of the oldest that waits or is worked at", Some(Unit::Seconds), &ages)?;
        let lengths: Vec<Of<u64>> = queues().map(|(q, at)| (Some(("queue", q)), at.count)).collect();
        out.gauges("queue_length", "Frames before the network, packets before a sink", None, &lengths)?;
        let ceiling = [(None, stats.latency_max.as_secs_f64())];
        out.gauges("latency_max", "The ceiling", Some(Unit::Seconds), &ceiling)?;
        out.gauges("source_up", "Whether the source is there", None, &one(now.on_air.into()))?;
        out.counters("source_connections", "How often the source was found", None, &one(now.connections))?;
        out.counters("source_clock_jumps", "How often its times jumped", None, &one(now.clock_jumps))?;
        out.counters("source_received", "What the source sent", Some(Unit::Bytes), &one(now.bytes))?;
        let sinks = |value: fn(&super::Sink) -> u64| -> Vec<Of<u64>> {
            now.sinks.iter().map(|sink| (Some(("sink", sink.name.as_str())), value(sink))).collect()
        };
        out.gauges("sink_up", "Whether the sink takes packets", None, &sinks(|sink| sink.connected.into()))?;
        out.counters("sink_connections", "How often it was opened", None, &sinks(|sink| sink.connections))?;
        out.counters("sink_packets", "Packets it took", None, &sinks(|sink| sink.packets))?;
        out.counters("sink_sent", "What it took", Some(Unit::Bytes), &sinks(|sink| sink.bytes))?;
        let dropped = sinks(|sink| sink.dropped);
        out.counters("sink_packets_dropped", "Packets it did not take in time", None, &dropped)?;
        out.latency(stats)
    }
}

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counters<T: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: &[Of<T>],
    ) -> fmt::Result {
        let tell = |to: &mut MetricEncoder, value: &T| to.encode_counter::<NoLabelSet, _, f64>(value, None);
        self.family((name, help, unit), MetricType::Counter, values, tell)
    }

    fn gauges<T: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: &[Of<T>],
    ) -> fmt::Result {
        self.family((name, help, unit), MetricType::Gauge, values, |to, value| to.encode_gauge(value))
    }

    fn family<T>(
        &mut self,
        (name, help, unit): (&str, &str, Option<Unit>),
        kind: MetricType,
        values: &[Of<T>],
        tell: impl Fn(&mut MetricEncoder, &T) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        values.iter().try_for_each(|(label, value)| match label {
            Some(label) => tell(&mut family.encode_family(&[*label])?, value),
            None => tell(&mut family, value),
        })
    }

    fn latency(&mut self, stats: &Stats) -> fmt::Result {
        let latency = lock(&stats.latency);
        let mut below = 0;
        let buckets = LATENCY_MS.iter().chain([&usize::MAX]).map(|&ms| {
            let count = latency.count_below(ms) - below;
            below += count;
            (if ms == usize::MAX { f64::INFINITY } else { ms as f64 * 1e-3 }, count)
        });
        let buckets: Vec<(f64, u64)> = buckets.collect();
        let help = "From the arrival of a frame's packet to its coded frame";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let mut family = self.0.encode_descriptor("latency", help, unit, kind)?;
        family.encode_histogram::<NoLabelSet>(latency.sum_s, below, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counters_are_told_as_prometheus_reads_them() {
        let sinks = vec!["udp://a".to_owned(), "rtmp://b/live/***".to_owned()];
        let stats = Arc::new(Stats::new("udp://s".into(), sinks, Duration::from_millis(1500)));
        stats.note_latency(Duration::from_millis(15));
        stats.note_latency(Duration::from_secs(60));
        stats.rung_of("none").1.frames.store(7, std::sync::atomic::Ordering::Relaxed);
        let text = Metrics::new(stats).text();
        for line in [
            "# TYPE hasn_frames_upscaled counter",
            "hasn_frames_upscaled_total{model=\"none\"} 7",
            "hasn_frames_dropped_total{cause=\"late\"} 0",
            "hasn_stage_busy_seconds_total{stage=\"decode\"} 0.0",
            "hasn_queue_age_seconds{queue=\"udp://a\"} 0.0",
            "hasn_latency_max_seconds 1.5",
            "hasn_latency_seconds_bucket{le=\"0.02\"} 1",
            "hasn_latency_seconds_bucket{le=\"5.0\"} 1",
            "hasn_latency_seconds_bucket{le=\"+Inf\"} 2",
            "hasn_latency_seconds_count 2",
            "hasn_sink_sent_bytes_total{sink=\"rtmp://b/live/***\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is missing in\n{text}");
        }
    }
}
