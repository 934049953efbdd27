//! Kills at moments chosen by chance, on several file systems.

use std::process::{Command, Stdio};

use crate::common::program::say_skipped;
use crate::random::{Random, count};
use crate::scenarios::FILE;
use crate::trial::{Conditions, Trial, Undisturbed};

/// On each file system, in `cargo test`.
const KILLS: usize = 4;

/// A file system over the folder of a trial.
struct Mounted<'a>(&'a Trial<'a>);

impl<'a> Mounted<'a> {
    /// `None` where this user may not mount it.
    fn new(trial: &'a Trial<'a>, kind: &str) -> Option<Mounted<'a>> {
        let work = trial.work();
        let mut mount = Command::new("mount");
        match kind {
            "tmpfs" => mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&work),
            _ => {
                // The upper layer of an overlay cannot be one itself, so it lies on a tmpfs.
                let base = trial.base();
                let script = format!(
                    "mount -t tmpfs -o size=64m tmpfs {base} && mkdir {base}/lower {base}/upper {base}/own && \
                     mount -t overlay -o lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/own overlay {work}",
                    base = base.display(),
                    work = work.display()
                );
                mount = Command::new("sh");
                mount.args(["-c", &script])
            }
        };
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let mount = Mounted(trial);
        mounted.then_some(mount)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        for folder in [self.0.work(), self.0.base()] {
            let _ = Command::new("umount").arg(folder).stderr(Stdio::null()).status();
        }
    }
}

fn kill_on(kind: &str) {
    let undisturbed = Undisturbed::of(&FILE);
    let mut random = Random::new();
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
            let outcome = outcome.unwrap_or_else(|wrong| {
                panic!("seed {}, on {kind}, after {kills} kills: {wrong}", random.seed)
            });
            kills += 1;
            resumed += usize::from(outcome.contains("resumed"));
        }
    }
    println!("{kind}: {kills} kills, {resumed} runs resumed, seed {}", random.seed);
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
