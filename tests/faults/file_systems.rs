//! File systems that lack a call, fail at the last step, or are full at any.

use std::fs;
use std::sync::OnceLock;

use crate::cases::{assert_survived, conditions};
use crate::scenarios::{BATCH, FILE};
use crate::trial::{Conditions, Undisturbed};

fn file() -> &'static Undisturbed {
    static RUN: OnceLock<Undisturbed> = OnceLock::new();
    RUN.get_or_init(|| Undisturbed::of(&FILE))
}

fn assert_outcome(faults: &str, expected: &str) {
    assert_eq!(assert_survived(&FILE, file(), faults), expected, "{faults}");
}

/// NFS, SMB, FAT and file systems in user space.
#[test]
fn a_file_system_may_lack_locks_folder_syncs_sizes_and_renames() {
    for faults in [
        "upscale flock * 1 always ENOLCK",
        "upscale fsync-folder * 1 always EINVAL",
        "upscale statvfs * 1 always zero",
        "upscale renameat2 * 1 always EINVAL",
        "upscale renameat2 * 1 always EINVAL ; upscale link * 1 always EPERM",
    ] {
        assert_outcome(faults, "succeeded all the same");
    }
}

/// A journal that cannot be removed is no error of a run whose output has its name.
#[test]
fn nothing_is_an_error_once_the_output_has_its_name() {
    for faults in [
        "upscale rmdir out.mkv.hasn 1 always ENOTEMPTY",
        "upscale unlink out.mkv.hasn/*.segment 1 always EIO",
        "upscale unlink out.mkv.hasn/lock 1 once EIO",
    ] {
        assert_outcome(faults, "succeeded, and left something with a warning");
    }
    // The log warns, and the report is missing.
    assert_outcome("upscale rename report.json 1 always EIO", "succeeded all the same");
    assert_outcome("upscale fsync-folder . 2 always EIO", "succeeded all the same");
    let batch = Undisturbed::of(&BATCH);
    let faults = "upscale rmdir out/a.mkv.hasn 1 once ENOTEMPTY";
    assert_eq!(assert_survived(&BATCH, &batch, faults), "succeeded, and left something with a warning");
}

#[test]
fn a_full_disk_is_waited_for_at_every_step() {
    for call in [
        "mkdir out.mkv.hasn 1",
        "open out.mkv.hasn/lock 1",
        "open out.mkv.hasn/.writing-* 1",
        "write out.mkv.hasn/.writing-* 1",
        "rename out.mkv.hasn/journal.json 1",
        "rename out.mkv.hasn/000001.segment 1",
        "open out.partial.mkv 1",
        "write out.partial.mkv 1",
        "fsync out.partial.mkv 1",
        "rename out.mkv.hasn/joined 1",
        "renameat2 out.mkv 1",
        "open .writing-* 1",
        "write .writing-* 1",
        "rename report.json 1",
    ] {
        for errno in ["ENOSPC", "EDQUOT"] {
            assert_outcome(&format!("upscale {call} once {errno}"), "succeeded all the same");
        }
    }
    // In vain, until SIGTERM.
    for call in ["rename out.mkv.hasn/journal.json", "write out.partial.mkv", "renameat2 out.mkv"] {
        let ended = "waited for space, ended at SIGTERM, and resumed";
        assert_outcome(&format!("upscale {call} 1 always EDQUOT"), ended);
    }
}

/// Linux may take the pages of a failed sync for written ones.
#[test]
fn a_segment_whose_sync_fails_is_copied_and_the_copy_synced() {
    // The first is `journal.json`, the next a segment.
    for errno in ["EIO", "ENOSPC", "EDQUOT"] {
        let trial = file().trial(&FILE);
        let faults = format!("upscale fsync out.mkv.hasn/.writing-* 2 once {errno}");
        let ended = trial.run(FILE.steps[0], &conditions(&faults)).remove(0);
        assert!(ended.status.success(), "{faults}: {}", ended.stderr);
        let copied = "a segment cannot be synced to the disk";
        assert_eq!(ended.stderr.matches(copied).count(), 1, "{faults}: {}", ended.stderr);
        trial.assert_complete(file());
    }
    assert_outcome(
        "upscale fsync out.mkv.hasn/.writing-* 3 always EIO",
        "failed with a clear line, and resumed",
    );
}

/// Some file systems in user space write when a file is closed.
#[test]
fn a_file_that_cannot_be_closed_does_not_get_its_name() {
    let trial = file().trial(&FILE);
    let faults = "upscale close out.partial.mkv 2 always EIO";
    let ended = trial.run(FILE.steps[0], &conditions(faults)).remove(0);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(!trial.work().join("out.mkv").exists());
    assert!(trial.run(FILE.steps[0], &Conditions::default()).remove(0).status.success());
    trial.assert_complete(file());
}

/// What a run has verified only lacks its name, and the next run joins nothing again.
#[test]
fn a_failed_rename_is_all_that_is_left_to_do() {
    let trial = file().trial(&FILE);
    let ended = trial.run(FILE.steps[0], &conditions("upscale renameat2 out.mkv 1 once EIO")).remove(0);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("the complete output is in out.partial.mkv"), "{}", ended.stderr);
    for entry in fs::read_dir(trial.work().join("out.mkv.hasn")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "segment") {
            fs::remove_file(path).unwrap();
        }
    }
    let ended = trial.run(FILE.steps[0], &conditions("upscale write * 1 always EIO")).remove(0);
    assert!(ended.status.success(), "nothing is written: {}", ended.stderr);
    assert!(trial.work().join("out.mkv").exists() && !trial.work().join("out.mkv.hasn").exists());
}
