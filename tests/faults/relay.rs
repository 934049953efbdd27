//! A relay from a file into two recordings, in real time. A recording that fails takes nothing from the other; a source
//! that fails is reported; what has its final name is playable.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use crate::common::Random;
use crate::common::random::{count, seed};
use crate::outcomes::Outcomes;
use crate::preload::{self, Fault};
use crate::scenarios::RELAY;
use crate::trial::{Conditions, Trial, Undisturbed};

/// In `cargo test`.
const CALLS: usize = 0;
/// A relay waits most of the time.
const SIDE_BY_SIDE: usize = 6;
const SINKS: [&str; 2] = ["first.mkv", "second.ts"];
const FRAMES: usize = 50;
/// Of a relay some may be dropped late on a busy machine.
const FRAMES_MIN: usize = 40;
/// A relay whose source does not return runs until it is stopped.
const STOPPED_AFTER: Duration = Duration::from_secs(5);

fn judge(trial: &Trial, faults: &str) -> Result<&'static str, String> {
    let conditions = Conditions {
        faults: faults.to_owned(),
        terminate_after: Some(STOPPED_AFTER),
        ..Conditions::default()
    };
    let ended = trial.run(RELAY.steps[0], &conditions).remove(0);
    trial.check_ended(&ended, &conditions)?;
    let stem = |name: &str| name.split('.').next().expect("a name has a beginning").to_owned();
    let is_disturbed = |sink: &str| faults.contains(&format!(" {}.", stem(sink)));
    let is_source_disturbed = !SINKS.iter().any(|sink| is_disturbed(sink));
    for sink in SINKS {
        let frames = trial.frames(sink).map_err(|e| format!("{sink} is not playable: {e}"))?;
        match frames {
            None if is_disturbed(sink) && !ended.status.success() => {}
            None if is_source_disturbed && ended.stderr.contains("source.ts: ") => {}
            None => return Err(format!("{sink} is missing: {}", ended.stderr)),
            Some(frames) if frames >= FRAMES_MIN => {}
            Some(_) if is_source_disturbed && ended.stderr.contains("source.ts: ") => {}
            Some(_) if is_disturbed(sink) && ended.stderr.contains(&format!("{sink}: ")) => {}
            Some(frames) => {
                return Err(format!("{sink} has {frames} of {FRAMES} frames: {}", ended.stderr));
            }
        }
    }
    let is_read_error = faults.contains(" read source.ts ") && !faults.contains(" short");
    let has_failed = preload::has_failed(&trial.log());
    if is_read_error && has_failed && !ended.stderr.contains("source.ts: ") {
        return Err("a failed read of the source is not reported".to_owned());
    }
    Ok(match (has_failed, ended.has_waited, ended.status.success()) {
        (false, ..) => "the fault did not happen",
        (_, true, _) => "waited for the source until SIGTERM",
        (_, _, true) => "succeeded all the same",
        (_, _, false) => "failed with a clear line, and kept the other recording",
    })
}

#[test]
fn a_relay_survives_every_fault() {
    let undisturbed = Undisturbed::of(&RELAY);
    let calls: BTreeSet<_> = preload::calls(&undisturbed.log).into_iter().collect();
    let mut faults: Vec<_> = calls.iter().flat_map(Fault::of).map(|fault| fault.to_string()).collect();
    let seed = seed("HASN_FAULT_SEED");
    let mut random = Random(seed);
    let wanted = count("HASN_FAULT_CALLS", CALLS);
    while faults.len() > wanted {
        faults.swap_remove(random.below(faults.len()));
    }
    if let Ok(fault) = std::env::var("HASN_FAULT") {
        faults = vec![fault];
    }
    let outcomes = Mutex::new(Outcomes::default());
    let faults = Mutex::new(faults.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some(fault) = faults.lock().unwrap().next() else { return };
                    let outcome = judge(&undisturbed.trial(&RELAY), &fault);
                    let conditions = Conditions { faults: fault, ..Conditions::default() };
                    outcomes.lock().unwrap().add(&RELAY, &conditions, outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap().report(RELAY.name, seed);
}
