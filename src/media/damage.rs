//! What of a source is damaged: noted where it is met, in demux and decode, and judged once at the end of the run.

use std::sync::{Arc, Mutex};

use tracing::warn;

use crate::error::Error;
use crate::sync::lock;

/// Shared by all who read one source.
#[derive(Clone)]
pub struct Damage {
    source: String,
    /// Of a source that is read a second time, all is said already.
    quiet: bool,
    found: Arc<Mutex<Found>>,
}

#[derive(Default)]
struct Found {
    is_told: bool,
    count: u64,
    places: Vec<DamagedPlace>,
}

/// A frame or a packet that is not what it was.
#[derive(Clone, PartialEq, Debug)]
pub struct DamagedPlace {
    /// What is wrong with it.
    pub problem: String,
    /// The frame it is, or the one that was decoded next.
    pub frame: Option<u64>,
    /// pts of that frame in the source's ticks, or of the packet.
    pub pts: Option<i64>,
    /// The same in seconds.
    pub seconds: Option<f64>,
}

/// Of a hopeless file the first places tell as much as all of them.
const PLACES_MAX: usize = 1000;

impl Damage {
    pub(crate) fn new(source: &str, quiet: bool) -> Damage {
        Damage { source: source.to_owned(), quiet, found: Arc::default() }
    }

    /// Counts one more. The first is said at once, all are in the report.
    pub fn note(&self, place: DamagedPlace) {
        self.note_many(1, place);
    }

    /// Counts so many more, from this place on.
    pub(crate) fn note_many(&self, count: u64, place: DamagedPlace) {
        let mut found = lock(&self.found);
        found.count += count;
        if !std::mem::replace(&mut found.is_told, true) && !self.quiet {
            warn!("{}: {place}; going on", self.source);
        }
        if found.places.len() < PLACES_MAX {
            found.places.push(place);
        }
    }

    /// Tells what is no damage, but may be mistaken for it.
    pub(crate) fn say(&self, what: &str) {
        if !self.quiet {
            warn!("{}: {what}", self.source);
        }
    }

    /// Forgets what was found, for a source that is read from its beginning again.
    pub(crate) fn clear(&self) {
        let mut found = lock(&self.found);
        (found.count, found.places) = (0, Vec::new());
    }

    /// How many frames and packets.
    pub fn count(&self) -> u64 {
        lock(&self.found).count
    }

    /// Those met first.
    pub fn places(&self) -> Vec<DamagedPlace> {
        lock(&self.found).places.clone()
    }

    /// One line for all of it; `None` where there is none.
    pub fn error(&self) -> Option<Error> {
        let (count, places) = (self.count(), self.places());
        let first = places.first()?;
        let problem = match count {
            1 => first.to_string(),
            _ => format!("{count} damaged frames or packets, the first: {first}"),
        };
        Some(Error::new(
            &self.source,
            problem,
            format!("get a whole copy, or accept it with --tolerate {count}"),
        ))
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
