//! Relay: a live stream is upscaled and sent to several sinks, with a ceiling on its latency.
//!
//! In: [`Options`]. Out: the stream at every sink, until the source ends or the caller stops it. It knows no layer of a
//! network and no container.
//!
//! ```text
//! source ─frames→ upscale ─frames→ encode ─packets→ sinks
//!    └────────────────── audio ───────┘
//! ```
//!
//! `source.rs` opens the source, and `reconnect.rs` again when it is lost; a thread of its own reads it (`read_ahead.rs`) and
//! `connection.rs` decodes it. `mapping.rs` gives packets the output's time: made continuous (`continuity.rs`) and, where they
//! come in bursts, paced (`pace.rs`). `upscale.rs` runs each frame through the network that `Ladder::choose` in `ladder.rs`
//! picks: the best one that meets the frame's deadline (`budget.rs`), or none, in which case the frame is dropped. `pacer.rs`
//! owns the output's time: when no frame arrives it has `encode.rs` duplicate one. `sinks.rs` gives each sink a thread and a
//! ring of packets (`ring.rs`), and reconnects it. `run.rs` opens all of them, and `watchdog.rs` notices one that hangs.
//!
//! ```no_run
//! use hasn::relay::{OnLoss, Options, Relay};
//!
//! let sinks = vec!["rtmp://live.example.com/app/key".to_owned(), "archive.ts".to_owned()];
//! let mut options = Options::new("srt://0.0.0.0:9000?mode=listener", sinks);
//! options.on_loss = OnLoss::Black;
//! let relay = Relay::new(options)?;
//! let stop = Default::default();
//! if let Some(opened) = relay.open(&stop)? {
//!     opened.run(&stop)?;
//! }
//! println!("{:?}", relay.stats().snapshot(&mut Default::default()));
//! # Ok::<(), hasn::Error>(())
//! ```

mod budget;
mod connection;
mod continuity;
mod control;
mod encode;
mod failures;
mod gauges;
mod http;
mod ladder;
mod latency;
mod mapping;
mod metrics;
mod options;
mod pace;
mod pacer;
mod queue;
mod read_ahead;
mod reconnect;
mod ring;
mod run;
mod sinks;
mod source;
mod stats;
mod upscale;
mod watchdog;
#[cfg(test)]
mod weeks;

pub use crate::engine::EngineChoice;
pub use crate::media::AudioMode;
pub use control::Control;
pub use http::{Server, ServerGuard};
pub use options::Options;
pub use pacer::OnLoss;
pub use run::{OpenedRelay, Relay};
pub use stats::{BusySeconds, LatencyMark, Queue, Rung, Sink, Snapshot, Stats};
