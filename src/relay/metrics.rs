//! Metrics: the counters of a relay in OpenMetrics text, for Prometheus.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::stats::{LatencyMark, Queue, Sink, Stats};
use crate::sync::lock;

/// MIME type of [`Metrics::text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper bounds of the latency buckets in milliseconds, dense where ceilings usually are.
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

/// A value with its label; a metric with a single value has none.
type Labelled<'a, T> = (Option<(&'static str, &'a str)>, T);

impl Collector for Counters {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let stats = &self.0;
        let now = stats.snapshot(&mut LatencyMark::default());
        let mut out = Out(encoder);
        let one = |value: u64| [(None, value)];
        out.counters("frames_decoded", "Frames that the decoder returned", None, &one(now.decoded))?;
        out.counters("frames_encoded", "Frames encoded, duplicates included", None, &one(now.encoded))?;
        let rungs: Vec<Labelled<u64>> =
            now.ladder.iter().map(|rung| (Some(("model", rung.model.as_str())), rung.frames)).collect();
        out.counters("frames_upscaled", "Frames upscaled, by network", None, &rungs)?;
        let duplicated = [(Some(("cause", "loss")), now.duplicated)];
        out.counters("frames_duplicated", "Frames duplicated in place of missing ones", None, &duplicated)?;
        let dropped = [
            ("late", now.dropped_late),
            ("superseded", now.dropped_superseded),
            ("overflow", now.dropped_overflow),
        ];
        let dropped = dropped.map(|(cause, count)| (Some(("cause", cause)), count));
        out.counters(
            "frames_dropped",
            "Frames dropped: no network would have met the deadline (late); upscaled after a duplicate had taken \
             their place (superseded); the queue before the network was full (overflow)",
            None,
            &dropped,
        )?;
        let busy = now.busy_s;
        let busy = [("decode", busy.decode), ("upscale", busy.upscale), ("encode", busy.encode)];
        let busy = busy.map(|(stage, seconds)| (Some(("stage", stage)), seconds));
        out.counters("stage_busy", "Time that each stage was busy", Some(Unit::Seconds), &busy)?;
        let sink_queues = now.sinks.iter().map(|sink| (sink.name.as_str(), sink.queue));
        let queues: Vec<(&str, Queue)> = [("upscale", now.queue)].into_iter().chain(sink_queues).collect();
        let ages = queues.iter().map(|&(name, queue)| (Some(("queue", name)), queue.age_ms as f64 * 1e-3));
        let ages: Vec<Labelled<f64>> = ages.collect();
        out.gauges("queue_age", "Age of the oldest entry, queued or in work", Some(Unit::Seconds), &ages)?;
        let lengths = queues.iter().map(|&(name, queue)| (Some(("queue", name)), queue.length));
        let lengths: Vec<Labelled<u64>> = lengths.collect();
        out.gauges("queue_length", "Frames before the network, packets before a sink", None, &lengths)?;
        let ceiling = [(None, stats.latency_max.as_secs_f64())];
        out.gauges("latency_ceiling", "The ceiling that --latency-max sets", Some(Unit::Seconds), &ceiling)?;
        out.gauges("source_up", "Whether the source is connected", None, &one(now.source_connected.into()))?;
        out.counters(
            "source_connections",
            "Times the source was connected",
            None,
            &one(now.source_connections),
        )?;
        out.counters(
            "source_clock_jumps",
            "Jumps of the source's timestamps",
            None,
            &one(now.source_clock_jumps),
        )?;
        out.counters(
            "source_received",
            "Data received from the source",
            Some(Unit::Bytes),
            &one(now.source_bytes),
        )?;
        let sinks = |value: fn(&Sink) -> u64| -> Vec<Labelled<u64>> {
            now.sinks.iter().map(|sink| (Some(("sink", sink.name.as_str())), value(sink))).collect()
        };
        out.gauges("sink_up", "Whether the sink is connected", None, &sinks(|sink| sink.connected.into()))?;
        out.counters(
            "sink_connections",
            "Times the sink was connected",
            None,
            &sinks(|sink| sink.connections),
        )?;
        out.counters("sink_packets", "Packets written to the sink", None, &sinks(|sink| sink.packets))?;
        out.counters("sink_sent", "Data written to the sink", Some(Unit::Bytes), &sinks(|sink| sink.bytes))?;
        let dropped = sinks(|sink| sink.dropped);
        out.counters(
            "sink_packets_dropped",
            "Packets dropped: the sink was too slow or not connected",
            None,
            &dropped,
        )?;
        out.latency(stats)
    }
}

struct Out<'a>(DescriptorEncoder<'a>);

/// What describes a metric.
struct Descriptor<'a> {
    name: &'a str,
    help: &'a str,
    unit: Option<Unit>,
    kind: MetricType,
}

impl Out<'_> {
    fn counters<T: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: &[Labelled<T>],
    ) -> fmt::Result {
        let descriptor = Descriptor { name, help, unit, kind: MetricType::Counter };
        self.family(descriptor, values, |to, value| to.encode_counter::<NoLabelSet, _, f64>(value, None))
    }

    fn gauges<T: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: &[Labelled<T>],
    ) -> fmt::Result {
        let descriptor = Descriptor { name, help, unit, kind: MetricType::Gauge };
        self.family(descriptor, values, |to, value| to.encode_gauge(value))
    }

    fn family<T>(
        &mut self,
        Descriptor { name, help, unit, kind }: Descriptor,
        values: &[Labelled<T>],
        encode: impl Fn(&mut MetricEncoder, &T) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        values.iter().try_for_each(|(label, value)| match label {
            Some(label) => encode(&mut family.encode_family(&[*label])?, value),
            None => encode(&mut family, value),
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
        let help =
            "Time from the arrival of a frame's packet until a sink has taken the frame, once per sink";
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
    fn counters_are_written_as_prometheus_reads_them() {
        let sinks = vec!["udp://a".to_owned(), "rtmp://b/live/***".to_owned()];
        let stats = Arc::new(Stats::new("udp://s".into(), sinks, Duration::from_millis(1500), None));
        stats.note_latency(&stats.sinks[0], Duration::from_millis(15));
        stats.note_latency(&stats.sinks[0], Duration::from_secs(60));
        stats.rung_of("none").1.frames.store(7, std::sync::atomic::Ordering::Relaxed);
        let text = Metrics::new(stats).text();
        for line in [
            "# TYPE hasn_frames_upscaled counter",
            "hasn_frames_upscaled_total{model=\"none\"} 7",
            "hasn_frames_dropped_total{cause=\"late\"} 0",
            "hasn_stage_busy_seconds_total{stage=\"decode\"} 0.0",
            "hasn_queue_age_seconds{queue=\"udp://a\"} 0.0",
            "hasn_latency_ceiling_seconds 1.5",
            "hasn_latency_seconds_bucket{le=\"0.02\"} 1",
            "hasn_latency_seconds_bucket{le=\"5.0\"} 1",
            "hasn_latency_seconds_bucket{le=\"+Inf\"} 2",
            "hasn_latency_seconds_count 2",
            "hasn_sink_sent_bytes_total{sink=\"rtmp://b/live/***\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
    }
}
