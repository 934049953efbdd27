//! Faults that once cost frames, audio or hours of work.

use std::fs;
use std::sync::OnceLock;

use crate::common::program::{say_skipped, signal, wait_for};
use crate::mounts::Mounted;
use crate::preload;
use crate::scenarios::{LONG_FILE, LONG_PLAN, PLAN, Scenario};
use crate::trial::{Conditions, Undisturbed};

/// The long video, undisturbed.
fn long_file() -> &'static Undisturbed {
    static RUN: OnceLock<Undisturbed> = OnceLock::new();
    RUN.get_or_init(|| Undisturbed::of(&LONG_FILE))
}

pub fn conditions(faults: &str) -> Conditions {
    Conditions { faults: faults.to_owned(), ..Conditions::default() }
}

/// Faults cost nothing. Returns what came of them.
pub fn assert_survived(scenario: &Scenario, undisturbed: &Undisturbed, faults: &str) -> &'static str {
    let outcome = undisturbed.trial(scenario).judge(undisturbed, &conditions(faults));
    let outcome = outcome.unwrap_or_else(|wrong| panic!("{faults}: {wrong}"));
    assert_ne!(outcome, "the fault did not happen", "{faults}");
    outcome
}

/// The count of calls of this kind in an undisturbed run.
fn count(undisturbed: &Undisturbed, command: &str, name: &str, path: &str) -> usize {
    let calls = preload::calls(&undisturbed.log);
    let is_it = |call: &&preload::Call| (&*call.command, &*call.name, &*call.path) == (command, name, path);
    calls.iter().filter(is_it).count()
}

/// FFmpeg takes a read that fails for the end of a cluster and resumes at the next: later frames have other numbers.
#[test]
fn a_failed_read_before_a_kill_leaves_no_hole() {
    let faults = "upscale read video.mkv 40 once EIO ; upscale write out.mkv.hasn/.writing-* 700 once kill";
    assert_survived(&LONG_FILE, long_file(), faults);
}

#[test]
fn a_drive_that_vanishes_during_the_join_costs_no_audio() {
    let reads = count(long_file(), "upscale", "read", "video.mkv");
    for (before_the_end, when) in [(60, "always"), (20, "once"), (2, "once")] {
        let faults = format!("upscale read video.mkv {} {when} EIO", reads - before_the_end);
        assert_survived(&LONG_FILE, long_file(), &faults);
    }
}

#[test]
fn a_drive_that_vanishes_keeps_the_journal_usable() {
    assert_survived(&LONG_FILE, long_file(), "upscale read video.mkv 60 once vanish");
}

/// A drive that fails when the input is looked at does not make a pipe of it.
#[test]
fn an_input_that_cannot_be_looked_at_leaves_no_journal_of_a_pipe() {
    let undisturbed = Undisturbed::of(&PLAN);
    for nth in [5, 7] {
        assert_survived(&PLAN, &undisturbed, &format!("plan stat video.mkv {nth} always EIO"));
    }
}

#[test]
fn one_failed_read_keeps_the_segments() {
    let trial = long_file().trial(&LONG_FILE);
    let ended = trial.run(LONG_FILE.steps[0], &conditions("upscale read video.mkv 60 once EIO")).remove(0);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let kept = trial.segments("out.mkv.hasn");
    assert!(kept >= 1, "{}", ended.stderr);
    let ended = trial.run(LONG_FILE.steps[0], &Conditions::default()).remove(0);
    assert!(ended.stderr.contains(&format!("resuming after {} frames", 240 * kept)), "{}", ended.stderr);
    trial.assert_complete(long_file());
}

/// FFmpeg takes a read that fails for the end of the file, or skips a cluster.
#[test]
fn a_failed_read_of_the_finished_file_is_no_success() {
    for (nth, when) in [(10, "once"), (40, "once"), (40, "always")] {
        let trial = long_file().trial(&LONG_FILE);
        let faults = format!("upscale read out.partial.mkv {nth} {when} EIO");
        let ended = trial.run(LONG_FILE.steps[0], &conditions(&faults)).remove(0);
        assert_eq!(ended.status.code(), Some(1), "{faults}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("out.partial.mkv: cannot be read again: "),
            "{faults}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("choose another container"), "{faults}: {}", ended.stderr);
        trial.run(LONG_FILE.steps[0], &Conditions::default());
        trial.assert_complete(long_file());
    }
}

#[test]
fn a_worker_that_reads_too_little_closes_no_segment() {
    let undisturbed = Undisturbed::of(&LONG_PLAN);
    // Each worker begins near its segment, and a failed read may be its last.
    for (nth, when) in [(8, "once"), (12, "always")] {
        assert_survived(&LONG_PLAN, &undisturbed, &format!("segment read video.mkv {nth} {when} EIO"));
    }
}

/// NFS, SMB and FUSE keep a file that is open under another name; Lustre has no flock; some file systems do not sync
/// folders.
#[test]
fn file_systems_that_lack_something_fail_no_run() {
    for faults in [
        "upscale rmdir out.mkv.hasn 1 always ENOTEMPTY",
        "upscale flock * 1 always ENOLCK",
        "upscale fsync-folder * 1 always EINVAL",
        "upscale statvfs * 1 always EIO",
        "upscale statvfs * 1 always zero",
    ] {
        let outcome = assert_survived(&LONG_FILE, long_file(), faults);
        assert!(outcome.starts_with("succeeded"), "{faults}: {outcome}");
    }
}

/// It reports zero free bytes of zero.
#[test]
fn a_ramfs_does_not_wait_for_space() {
    let trial = long_file().trial(&LONG_FILE);
    let Some(_mounted) = Mounted::new(&trial, "ramfs") else {
        return say_skipped("a run on a ramfs, for this user may not mount one");
    };
    trial.fill(long_file().inputs());
    let ended = trial.run(LONG_FILE.steps[0], &Conditions::default()).remove(0);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    trial.assert_complete(long_file());
}

/// On NFS and on thin volumes, fsync is what finds the disk full. After one that failed, the pages are lost.
#[test]
fn a_full_disk_at_fsync_costs_no_segment() {
    for nth in 2..5 {
        let faults = format!("upscale fsync out.mkv.hasn/.writing-* {nth} once ENOSPC");
        let outcome = assert_survived(&LONG_FILE, long_file(), &faults);
        assert!(outcome.starts_with("succeeded"), "{faults}: {outcome}");
    }
}

#[test]
fn another_file_that_gets_the_name_is_kept() {
    let trial = long_file().trial(&LONG_FILE);
    let child = trial.start(&LONG_FILE.steps[0][0], 0, &Conditions::default());
    wait_for("a segment", || (trial.segments("out.mkv.hasn") > 0).then_some(()));
    signal(&child, "-STOP");
    let out = trial.work().join("out.mkv");
    assert!(!out.exists(), "the run is over already");
    fs::write(&out, "another file").unwrap();
    signal(&child, "-CONT");
    let ended = trial.end(child, 0, &Conditions::default());
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("out.mkv: "), "{}", ended.stderr);
    assert_eq!(fs::read(&out).unwrap(), b"another file");
    fs::remove_file(&out).unwrap();
    let ended = trial.run(LONG_FILE.steps[0], &Conditions::default()).remove(0);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    trial.assert_complete(long_file());
}
