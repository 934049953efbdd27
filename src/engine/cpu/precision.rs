//! The precision of the CPU engine: the one that is asked for, or the one that this machine computes fastest.
//!
//! The speed is measured, because no rule by the CPU's instructions holds: with bf16 a Zen 4 takes half of the time of f32,
//! an Emerald Rapids 1.6 times as long. A whole network runs on a small frame. The peaks of multiply-adds alone would
//! mislead: those of int16 and bf16 are equal on the Zen 4, and the times of a frame differ by 3 to 5 %.

use std::fmt::{self, Display, Formatter};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hasn_kernels::{Level, Precision};
use tracing::info;

use super::level;
use super::net::{Net, Weights};
use crate::engine::forward::Forward;
use crate::error::{Error, ErrorKind, Result};
use crate::model::catalogue;

/// Environment variable with speeds in place of the measured ones, for tests.
const VARIABLE: &str = "HASN_CPU_SPEEDS";

/// Largest bit depth of frames for which bf16 or int16 is chosen automatically.
const SHORT_BITS_MAX: u8 = 10;

/// Part of the highest speed at which a more exact precision is chosen.
const TIE: f64 = 0.96;

/// Width and height of the frame, on which a pass takes less than a millisecond: so short a time is seldom interrupted.
const SIZE: (usize, usize) = (64, 16);
/// Passes of each precision, of which the fastest is the least disturbed.
const ROUNDS: usize = 8;

/// Returns the level of this process, and the requested precision or the fastest one without visible loss in frames of this
/// bit depth.
pub(crate) fn choose(requested: Option<Precision>, bits: u8) -> Result<(Level, Precision)> {
    let level = level::detect()?;
    let precision = match requested {
        None if bits <= SHORT_BITS_MAX && level.precisions().nth(1).is_some() => {
            let speeds = Speeds::of_this_machine()?;
            let best = speeds.best();
            info!("CPU level {}: {speeds}; --precision auto takes {}", level.name(), best.name());
            best
        }
        None => Precision::F32,
        Some(precision) if level.precisions().any(|one| one == precision) => precision,
        Some(precision) => {
            let subject = format!("--precision {}", precision.name());
            let problem = format!("the CPU level {} does not multiply it", level.name());
            return Err(
                Error::new(subject, problem, "use --precision auto").with_kind(ErrorKind::Unsupported)
            );
        }
    };
    Ok((level, precision))
}

/// Speed of each precision of a level in megapixels per second of one thread, most exact first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Speeds(Vec<(Precision, f64)>);

impl Speeds {
    /// Measures the level of this process once, or reads `HASN_CPU_SPEEDS`.
    pub(crate) fn of_this_machine() -> Result<Speeds> {
        static MEASURED: OnceLock<Speeds> = OnceLock::new();
        let level = level::detect()?;
        match std::env::var_os(VARIABLE) {
            Some(text) => Speeds::parse(level, &text.to_string_lossy()),
            None => Ok(MEASURED.get_or_init(|| Speeds::measure(level)).clone()),
        }
    }

    /// The most exact precision that is about as fast as the fastest.
    pub(crate) fn best(&self) -> Precision {
        let highest = self.0.iter().map(|&(_, speed)| speed).fold(0.0, f64::max);
        let mut fast = self.0.iter().filter(|(_, speed)| *speed >= TIE * highest);
        fast.next().expect("every level has f32").0
    }

    fn measure(level: Level) -> Speeds {
        let model = catalogue::open(catalogue::DEFAULT_IMAGE).expect("a built-in model");
        let (width, height) = SIZE;
        let x = vec![0.5; model.sizes.in_channels * width * height];
        let mut y = vec![0.0; model.sizes.upsampler_channels() * width * height];
        let open = |precision| Net::new(Weights::new(&model, level, precision), SIZE, 1);
        let mut nets: Vec<_> = level.precisions().map(open).collect();
        let scratch_len = nets.iter().map(Net::scratch_len).max().unwrap_or_default();
        let mut scratch = vec![0.0; scratch_len];
        let mut fastest = vec![Duration::MAX; nets.len()];
        for _ in 0..ROUNDS {
            for (net, fastest) in nets.iter_mut().zip(&mut fastest) {
                let start = Instant::now();
                net.forward(&x, &mut y, &mut scratch);
                *fastest = start.elapsed().min(*fastest);
            }
        }
        let speed = |time: Duration| (width * height) as f64 * 1e-6 / time.as_secs_f64();
        Speeds(level.precisions().zip(fastest.into_iter().map(speed)).collect())
    }

    /// Reads `f32=1,int16=2,bf16=2.5`; precisions that the level lacks are ignored.
    fn parse(level: Level, text: &str) -> Result<Speeds> {
        let speed_of = |precision: Precision| {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            let speed =
                pairs.filter(|(name, _)| *name == precision.name()).find_map(|(_, speed)| speed.parse().ok());
            speed.filter(|speed: &f64| *speed > 0.0).map(|speed| (precision, speed)).ok_or_else(|| {
                let problem = format!("has no speed of {}", precision.name());
                Error::new(format!("{VARIABLE}={text}"), problem, "write it like f32=1,int16=2,bf16=2.5")
            })
        };
        level.precisions().map(speed_of).collect::<Result<_>>().map(Speeds)
    }
}

impl Display for Speeds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let speeds: Vec<_> =
            self.0.iter().map(|(precision, speed)| format!("{} {speed:.2}", precision.name())).collect();
        write!(f, "{} Mpx/s a thread", speeds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use Precision::{Bf16, F32, Int16};

    use super::*;

    #[test]
    fn the_most_exact_of_the_fastest_is_chosen() {
        for (speeds, expected) in [
            // An Emerald Rapids, a Zen 4.
            (vec![(F32, 3.6), (Int16, 4.5), (Bf16, 2.2)], Int16),
            (vec![(F32, 2.5), (Int16, 3.9), (Bf16, 4.4)], Bf16),
            (vec![(F32, 1.0), (Int16, 1.95), (Bf16, 2.0)], Int16),
            (vec![(F32, 1.0), (Int16, 1.90), (Bf16, 2.0)], Bf16),
            (vec![(F32, 1.95), (Int16, 2.0), (Bf16, 1.98)], F32),
            (vec![(F32, 1.90), (Int16, 1.95), (Bf16, 2.0)], Int16),
            (vec![(F32, 9.0), (Int16, 1.0)], F32),
            (vec![(F32, 1.0)], F32),
        ] {
            assert_eq!(Speeds(speeds.clone()).best(), expected, "{speeds:?}");
        }
    }

    #[test]
    fn all_precisions_are_measured_most_exact_first() {
        let level = *Level::available().last().unwrap();
        let Speeds(speeds) = Speeds::measure(level);
        let precisions: Vec<_> = speeds.iter().map(|&(precision, _)| precision).collect();
        assert_eq!(precisions, level.precisions().collect::<Vec<_>>());
        assert!([F32, Int16, Bf16].into_iter().filter(|one| precisions.contains(one)).eq(precisions.clone()));
        assert!(speeds.iter().all(|(_, speed)| (1e-3..1e3).contains(speed)), "{speeds:?}");
    }

    #[test]
    fn deep_frames_take_f32() {
        for bits in [11, 12, 16, 32] {
            assert_eq!(choose(None, bits).unwrap().1, F32);
        }
        let best = Speeds::of_this_machine().unwrap().best();
        assert_eq!(choose(None, 10).unwrap().1, best);
        assert_eq!(choose(Some(F32), 8).unwrap().1, F32);
    }

    #[test]
    fn given_speeds_are_read_or_refused() {
        let level = *Level::available().last().unwrap();
        let Speeds(speeds) = Speeds::parse(level, "bf16=2,f32=1,int16=1.5").unwrap();
        let expected = |precision| {
            [(F32, 1.0), (Int16, 1.5), (Bf16, 2.0)].into_iter().find(|(one, _)| *one == precision)
        };
        assert!(speeds.iter().copied().eq(level.precisions().filter_map(expected)), "{speeds:?}");
        for text in
            ["", "f32", "f32=", "f32=x,int16=1,bf16=1", "f32=-1,int16=1,bf16=1", "f32=nan", "int16=1,bf16=1"]
        {
            let line = Speeds::parse(level, text).unwrap_err().to_string();
            assert!(line.starts_with(&format!("HASN_CPU_SPEEDS={text}: has no speed of f32; ")), "{line}");
        }
    }
}
