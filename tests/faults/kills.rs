//! Kills at moments chosen by chance, on several file systems.

use crate::common::Random;
use crate::common::program::say_skipped;
use crate::common::random::{count, seed};
use crate::mounts::Mounted;
use crate::scenarios::FILE;
use crate::trial::{Conditions, Undisturbed};

/// On each file system, in `cargo test`.
const KILLS: usize = 2;

fn kill_on(kind: &str) {
    let undisturbed = Undisturbed::of(&FILE);
    let seed = seed("HASN_FAULT_SEED");
    let mut random = Random(seed);
    let (mut kills, mut resumed) = (0, 0);
    while kills < count("HASN_FAULT_KILLS", KILLS) {
        let trial = undisturbed.trial(&FILE);
        let mounted = match kind {
            "plain" => None,
            kind => match Mounted::new(&trial, kind) {
                Some(mounted) => Some(mounted),
                None => return say_skipped(&format!("kills on {kind}, for this user may not mount one")),
            },
        };
        if mounted.is_some() {
            trial.fill(undisturbed.inputs());
        }
        // Several kills of one run, the last of which is resumed.
        let times = 1 + random.below(4);
        for time in 1..=times {
            let after = undisturbed.took.mul_f64(random.below(1000) as f64 / 1000.0);
            let conditions = Conditions { kill_after: Some(after), ..Conditions::default() };
            if time < times {
                kills += trial
                    .run(FILE.steps[0], &conditions)
                    .iter()
                    .filter(|ended| ended.status.code().is_none())
                    .count();
                continue;
            }
            let outcome = trial.judge(&undisturbed, &conditions);
            let outcome = outcome
                .unwrap_or_else(|wrong| panic!("seed {}, on {kind}, after {kills} kills: {wrong}", seed));
            kills += 1;
            resumed += usize::from(outcome.contains("resumed"));
        }
    }
    println!("{kind}: {kills} kills, {resumed} runs resumed, seed {}", seed);
}

#[test]
fn kills_on_a_plain_folder_cost_nothing() {
    kill_on("plain");
}

#[test]
fn kills_on_a_tmpfs_cost_nothing() {
    kill_on("tmpfs");
}

#[test]
fn kills_on_an_overlay_cost_nothing() {
    kill_on("overlay");
}
