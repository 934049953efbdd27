//! Reconnect: a source that is lost is opened again.
//!
//! In: how to reach a source. Out: its connections, one after the other, which `connection.rs` reads.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tracing::{info, warn};

use super::connection::{self, SourceIo};
use super::source::{Backoff, Session, SourceSpec};
use crate::error::{Error, ErrorKind, Result};

/// Reads the source until it ends for good or `stop` is set.
pub(super) fn run(spec: &SourceSpec, first: Session, io: &SourceIo) -> Result<()> {
    let (mut next, mut backoff) = (Some(first), Backoff::new());
    while let Some(session) = next.take() {
        let connected_at = Instant::now();
        io.stats.source_connections.fetch_add(1, Relaxed);
        io.stats.set_source_connected(true);
        let (name, is_file) = (session.input.name().to_owned(), session.is_file);
        let result = connection::run(session, io);
        io.stats.set_source_connected(false);
        if io.stop.load(Relaxed) {
            return Ok(());
        }
        if is_file {
            return result;
        }
        let cause = result.as_ref().err().map_or("end of stream".into(), Error::to_string);
        if spec.stop_on_loss {
            let lost = Error::new(
                name,
                format!("connection lost: {cause}"),
                "use --on-loss hold to continue without it",
            );
            return Err(match result {
                Ok(()) => lost.with_kind(ErrorKind::Io),
                Err(error) => lost.with_kind(error.kind()).with_source(error),
            });
        }
        let is_short = backoff.note_lost(connected_at.elapsed());
        let is_reported = backoff.is_reported();
        if is_reported {
            let often =
                if backoff.short > 1 { format!(", {} times in a row", backoff.short) } else { "".into() };
            warn!("{name}: connection lost{often}: {cause}");
        }
        if is_short {
            backoff.wait(io.stop);
        }
        next = spec.connect(&mut backoff, io.stop)?;
        if next.is_some() && is_reported {
            info!("{name}: reconnected");
        }
    }
    Ok(())
}
