//! Damage of a source: noted where demux and decode find it, judged once at the end of the run.

use std::sync::{Arc, Mutex};

use tracing::warn;

use crate::error::{Error, ErrorKind};
use crate::sync::lock;

/// The damage of one source, shared by all that read it.
#[derive(Clone)]
pub struct Damage {
    source: String,
    /// Whether nothing is logged: the source is read a second time.
    is_quiet: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_logged: bool,
    count: u64,
    places: Vec<DamagedPlace>,
}

/// A damaged frame or packet.
#[derive(Clone, PartialEq, Debug)]
pub struct DamagedPlace {
    /// What is wrong.
    pub problem: String,
    /// Index of the frame, or of the one that was decoded next.
    pub frame: Option<u64>,
    /// pts of the frame or packet in the source's ticks.
    pub pts: Option<i64>,
    /// pts in seconds.
    pub seconds: Option<f64>,
}

/// Places that are kept; the others are only counted.
const PLACES_MAX: usize = 1000;

impl Damage {
    pub(crate) fn new(source: &str, is_quiet: bool) -> Damage {
        Damage { source: source.to_owned(), is_quiet, state: Arc::default() }
    }

    /// Counts a damaged place. The first is logged at once; the report lists the first `PLACES_MAX`.
    pub fn note(&self, place: DamagedPlace) {
        self.note_many(1, place);
    }

    /// Counts `count` damaged frames or packets, the first of which is at `place`.
    pub(crate) fn note_many(&self, count: u64, place: DamagedPlace) {
        let mut state = lock(&self.state);
        state.count += count;
        if !std::mem::replace(&mut state.is_logged, true) && !self.is_quiet {
            warn!("{}: {place}; decoding continues", self.source);
        }
        if state.places.len() < PLACES_MAX {
            state.places.push(place);
        }
    }

    /// Adds what was found, and logged, elsewhere.
    pub fn add(&self, other: &Damage) {
        let (count, places) = (other.count(), other.places());
        let mut state = lock(&self.state);
        state.count += count;
        let room = PLACES_MAX - state.places.len();
        state.places.extend(places.into_iter().take(room));
    }

    /// Logs what is not damage but may be mistaken for it.
    pub(crate) fn warn(&self, what: &str) {
        if !self.is_quiet {
            warn!("{}: {what}", self.source);
        }
    }

    /// Discards what was found, for a source that is read from its beginning again.
    pub(crate) fn clear(&self) {
        let mut state = lock(&self.state);
        (state.count, state.places) = (0, Vec::new());
    }

    /// Number of damaged frames and packets.
    pub fn count(&self) -> u64 {
        lock(&self.state).count
    }

    /// The first places, in the order they were found.
    pub fn places(&self) -> Vec<DamagedPlace> {
        lock(&self.state).places.clone()
    }

    /// One line for all damage; `None` if there is none.
    pub fn error(&self) -> Option<Error> {
        let (count, places) = (self.count(), self.places());
        let first = places.first()?;
        let problem = match count {
            1 => first.to_string(),
            _ => format!("{count} damaged frames or packets, the first: {first}"),
        };
        let remedy = format!("get a complete copy, or accept it with --tolerate {count}");
        Some(Error::new(&self.source, problem, remedy).with_kind(ErrorKind::Damaged))
    }
}

impl std::fmt::Display for DamagedPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.problem)?;
        let frame = self.frame.map(|index| format!("frame {index}"));
        let pts = self.pts.map(|pts| format!("pts {pts}"));
        let seconds = self.seconds.map(|seconds| format!("{seconds:.3} s"));
        let place: Vec<String> = [frame, pts, seconds].into_iter().flatten().collect();
        if place.is_empty() { Ok(()) } else { write!(f, " ({})", place.join(", ")) }
    }
}
