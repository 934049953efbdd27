//! What came of many trials.

use std::collections::BTreeMap;

use crate::scenarios::Scenario;
use crate::trial::Conditions;

/// Trials by what came of them.
#[derive(Default)]
pub struct Outcomes {
    tried: usize,
    kinds: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Outcomes {
    pub fn add(
        &mut self,
        scenario: &Scenario,
        conditions: &Conditions,
        outcome: Result<&'static str, String>,
    ) {
        self.tried += 1;
        match outcome {
            Ok(kind) => *self.kinds.entry(kind).or_default() += 1,
            Err(wrong) => {
                let kill =
                    conditions.kill_after.map_or(String::new(), |after| format!(", killed after {after:?}"));
                let line = format!("{}: HASN_FAULT='{}'{kill}: {wrong}", scenario.name, conditions.faults);
                println!("WRONG {line}");
                self.wrong.push(line);
            }
        }
    }

    pub fn report(self, name: &str, seed: u64) {
        println!("{name}: {} tried, {} wrong, seed {seed}", self.tried, self.wrong.len());
        for (kind, count) in &self.kinds {
            println!("    {count:6} {kind}");
        }
        assert!(self.wrong.is_empty(), "seed {seed}\n{}", self.wrong.join("\n"));
    }
}
