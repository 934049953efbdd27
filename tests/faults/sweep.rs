//! Every call of a run fails in turn, in every way that fits it.

use std::collections::BTreeSet;

use crate::common::Random;
use crate::common::random::{count, seed};
use crate::outcomes::Outcomes;
use crate::preload::{self, Fault};
use crate::scenarios::{BATCH, FILE, PLAN, SEQUENCE, Scenario};
use crate::trial::{Conditions, Trial, Undisturbed};

/// Of each scenario, in `cargo test`.
const CALLS: usize = 2;
const PAIRS: usize = 2;

/// Every fault of an undisturbed run.
fn faults_of(log: &str) -> Vec<Fault> {
    let calls: BTreeSet<_> = preload::calls(log).into_iter().collect();
    calls.iter().flat_map(Fault::of).collect()
}

fn sweep(scenario: &Scenario) {
    sweep_by(scenario, |trial, undisturbed, conditions| trial.judge(undisturbed, conditions));
}

/// The sweep of a scenario whose trials are judged by `judge`.
pub fn sweep_by(
    scenario: &Scenario,
    judge: fn(&Trial, &Undisturbed, &Conditions) -> Result<&'static str, String>,
) {
    let undisturbed = Undisturbed::of(scenario);
    let seed = seed("HASN_FAULT_SEED");
    let mut random = Random(seed);
    let mut outcomes = Outcomes::default();
    let mut attempt = |faults: String| {
        let conditions = Conditions { faults, ..Conditions::default() };
        let outcome = judge(&undisturbed.trial(scenario), &undisturbed, &conditions);
        outcomes.add(scenario, &conditions, outcome);
    };
    match std::env::var("HASN_FAULT") {
        Ok(fault) => attempt(fault),
        Err(_) => {
            let mut faults = faults_of(&undisturbed.log);
            println!("{}: {} faults", scenario.name, faults.len());
            let wanted = count("HASN_FAULT_CALLS", CALLS);
            while faults.len() > wanted {
                faults.swap_remove(random.below(faults.len()));
            }
            faults.iter().for_each(|fault| attempt(fault.to_string()));
        }
    }
    outcomes.report(scenario.name, seed);
}

#[test]
fn a_file_survives_every_fault() {
    sweep(&FILE);
}

#[test]
fn an_image_sequence_survives_every_fault() {
    sweep(&SEQUENCE);
}

#[test]
fn a_plan_survives_every_fault() {
    sweep(&PLAN);
}

#[test]
fn a_batch_survives_every_fault() {
    sweep(&BATCH);
}

/// A call fails, and another, or a moment, is the process's last.
#[test]
fn a_fault_and_a_kill_cost_nothing() {
    let seed = seed("HASN_FAULT_SEED");
    let mut random = Random(seed);
    let mut outcomes = Outcomes::default();
    let scenarios = [FILE, PLAN, SEQUENCE];
    let undisturbed: Vec<_> = scenarios.iter().map(Undisturbed::of).collect();
    for pair in 0..count("HASN_FAULT_PAIRS", PAIRS) {
        let (scenario, undisturbed) = (&scenarios[pair % 3], &undisturbed[pair % 3]);
        let faults = faults_of(&undisturbed.log);
        let fault = &faults[random.below(faults.len())];
        let mut conditions = Conditions { faults: fault.to_string(), ..Conditions::default() };
        if random.below(2) == 0 {
            let mut kill = faults[random.below(faults.len())].clone();
            (kill.is_for_good, kill.action) = (false, "kill");
            conditions.faults += &format!(" ; {kill}");
        } else {
            conditions.kill_after = Some(undisturbed.took.mul_f64(random.below(1000) as f64 / 1000.0));
        }
        let outcome = undisturbed.trial(scenario).judge(undisturbed, &conditions);
        outcomes.add(scenario, &conditions, outcome);
    }
    outcomes.report("pairs", seed);
}
