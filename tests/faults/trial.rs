//! One trial: the commands of a scenario in a folder of their own, with faults, then without, and what came of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{Folder, signal};
use crate::preload;
use crate::scenarios::{Scenario, Step};

/// Longer than any run of a scenario; one that takes it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(40);
/// 1 s is promised, which a debug build on a busy machine may miss.
const OBEYS_WITHIN: Duration = Duration::from_secs(3);
const POLL_EVERY: Duration = Duration::from_millis(2);
const SIGKILL: i32 = 9;
const ALREADY_EXISTS: &str = "already exists";
const NO_PLAN: &str = "name a folder that hasn plan wrote";
const WAITS: &str = "(Ctrl-C ends the run";

/// What an undisturbed run has left.
pub struct Undisturbed {
    /// Outputs by name.
    files: BTreeMap<String, Vec<u8>>,
    names: Vec<String>,
    report: serde_json::Value,
    /// Inputs, which each trial copies.
    inputs: Folder,
    /// The log of its calls.
    pub log: String,
    pub took: Duration,
}

/// How a command ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
    /// It waited for space, or longer than it should, and got SIGTERM.
    pub has_waited: bool,
    took: Duration,
    /// Not at all, or too long after SIGTERM.
    is_late: bool,
}

/// What a run with faults is subject to.
#[derive(Default)]
pub struct Conditions {
    /// In the words of `preload.c`; none are loaded if it is empty.
    pub faults: String,
    /// SIGKILL after this time.
    pub kill_after: Option<Duration>,
    /// SIGTERM after this time.
    pub terminate_after: Option<Duration>,
}

impl Conditions {
    pub fn has_kill(&self) -> bool {
        self.kill_after.is_some() || self.faults.contains(" kill")
    }
}

/// A folder `work` with a copy of the inputs, and what is not part of it beside it.
pub struct Trial<'a> {
    scenario: &'a Scenario,
    folder: Folder,
}

impl<'a> Trial<'a> {
    pub fn new(scenario: &'a Scenario, inputs: &Folder) -> Trial<'a> {
        let folder = Folder::new();
        for name in ["work", "tmp", "base"] {
            fs::create_dir(folder.path(name)).expect("the folder is ours");
        }
        let trial = Trial { scenario, folder };
        trial.fill(inputs);
        trial
    }

    /// Copies the inputs, with their modification times, as the journal identifies them by these.
    pub fn fill(&self, inputs: &Folder) {
        let copy = Command::new("cp").args(["-a", "--"]).arg(inputs.path(".")).arg(self.work()).status();
        assert!(copy.expect("cp is installed").success());
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path("work")
    }

    /// Where the layers of a mount of `work` may lie.
    pub fn base(&self) -> PathBuf {
        self.folder.path("base")
    }

    pub fn start(&self, step: &Step, nth: usize, conditions: &Conditions) -> Child {
        let mut hasn = self.folder.hasn_command(step.line);
        hasn.current_dir(self.work()).env("TMPDIR", self.folder.path("tmp"));
        let create = |name: &str| File::create(self.folder.path(&format!("{name}-{nth}"))).unwrap();
        hasn.stdout(create("stdout")).stderr(create("stderr"));
        hasn.stdin(match step.stdin {
            Some(name) => File::open(self.work().join(name)).expect("an input").into(),
            None => Stdio::null(),
        });
        if !conditions.faults.is_empty() {
            hasn.env("LD_PRELOAD", preload::library()).env("HASN_FAULT_FOLDER", self.work());
            hasn.env("HASN_FAULT_LOG", self.folder.path("log")).env("HASN_FAULT", &conditions.faults);
        }
        hasn.spawn().expect("hasn starts")
    }

    fn stderr(&self, nth: usize) -> String {
        String::from_utf8_lossy(&self.folder.read(&format!("stderr-{nth}"))).into_owned()
    }

    /// Waits for the end of a command. One that waits for space gets SIGTERM if it will never get it.
    pub fn end(&self, mut child: Child, nth: usize, conditions: &Conditions) -> Ended {
        let started = Instant::now();
        let waits_for_ever = conditions.faults.contains(" always ") || conditions.terminate_after.is_some();
        let mut signalled = None;
        let mut is_late = false;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if conditions.kill_after.is_some_and(|after| started.elapsed() > after) {
                let _ = child.kill();
            }
            let is_obeyed = signalled.is_none_or(|at: Instant| at.elapsed() < OBEYS_WITHIN);
            if !is_late && (started.elapsed() > HANGS_AFTER || !is_obeyed) {
                is_late = true;
                let _ = child.kill();
            }
            let is_time = conditions.terminate_after.is_some_and(|after| started.elapsed() > after);
            if signalled.is_none() && (is_time || waits_for_ever && self.stderr(nth).contains(WAITS)) {
                signal(&child, "-TERM");
                signalled = Some(Instant::now());
            }
            std::thread::sleep(POLL_EVERY);
        };
        let took = started.elapsed();
        let stderr = self.stderr(nth);
        Ended { status, stderr, has_waited: signalled.is_some(), took, is_late }
    }

    /// Runs steps, side by side, to their ends.
    pub fn run(&self, steps: &[Step], conditions: &Conditions) -> Vec<Ended> {
        let start = |(nth, step)| self.start(step, nth, conditions);
        let children: Vec<_> = steps.iter().enumerate().map(start).collect();
        let end = |(nth, child)| self.end(child, nth, conditions);
        children.into_iter().enumerate().map(end).collect()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path("log")).unwrap_or_default()
    }

    /// Every file and folder below `work`, sorted.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        list(&self.work(), "", &mut names);
        names.sort();
        names
    }

    /// The outputs that are there, by name.
    fn outputs(&self) -> BTreeMap<String, Vec<u8>> {
        let is_output = |name: &String| {
            let is_of = |output: &&str| name.starts_with(*output);
            self.scenario.outputs.iter().any(is_of) && !name.contains(".hasn") && !name.contains(".partial.")
        };
        let read = |name: String| {
            let path = self.work().join(&name);
            path.is_file().then(|| (name, fs::read(path).unwrap()))
        };
        self.names().into_iter().filter(is_output).filter_map(read).collect()
    }

    /// The counts of frames of the report, if there is one.
    fn frames_of_report(&self) -> Result<serde_json::Value, String> {
        let Ok(text) = fs::read_to_string(self.work().join("report.json")) else {
            return Ok(serde_json::Value::Null);
        };
        let report: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| format!("the report is not JSON: {e}: {text}"))?;
        Ok(serde_json::json!([report["frames"], report["damaged"], report["verification"]["frames"]]))
    }

    /// Runs all steps without faults, which has to succeed, and lists their calls.
    pub fn undisturbed(self, inputs: Folder) -> Undisturbed {
        let started = Instant::now();
        // A fault that never happens: the calls are logged.
        let conditions = Conditions { faults: "- - - 1 once EIO".to_owned(), ..Conditions::default() };
        for steps in &self.scenario.steps[..self.scenario.disturbed] {
            for ended in self.run(steps, &conditions) {
                assert_eq!(ended.status.code(), Some(0), "{}: {}", self.scenario.name, ended.stderr);
            }
        }
        let report = self.frames_of_report().unwrap();
        let (files, names, log) = (self.outputs(), self.names(), self.log());
        assert!(files.len() >= self.scenario.outputs.len(), "{names:?}");
        Undisturbed { files, names, report, inputs, log, took: started.elapsed() }
    }

    /// The outputs are those of an undisturbed run as far as they are there.
    pub fn check_outputs(&self, undisturbed: &Undisturbed, are_complete: bool) -> Result<(), String> {
        let files = self.outputs();
        for (name, bytes) in &files {
            match undisturbed.files.get(name) {
                Some(expected) if expected == bytes => {}
                Some(_) => return Err(format!("{name} differs from that of an undisturbed run")),
                None => return Err(format!("{name} is not in an undisturbed run")),
            }
        }
        let missing = undisturbed.files.keys().find(|name| !files.contains_key(*name));
        match missing {
            Some(name) if are_complete => Err(format!("{name} is missing")),
            _ => Ok(()),
        }
    }

    /// The count of video packets of a file, if it is there.
    pub fn frames(&self, name: &str) -> Result<Option<usize>, String> {
        if !self.work().join(name).exists() {
            return Ok(None);
        }
        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args(["-v", "error", "-select_streams", "v:0", "-count_packets", "-of", "csv=p=0"]);
        ffprobe.args(["-show_entries", "stream=nb_read_packets"]).arg(self.work().join(name));
        let output = ffprobe.output().expect("the ffprobe command is installed");
        let [text, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        // A transport stream lists a stream of a program twice.
        let count = text.split_whitespace().next().and_then(|word| word.trim_end_matches(',').parse().ok());
        count.filter(|_| errors.is_empty()).map(Some).ok_or(errors)
    }

    /// The count of segments in a journal.
    pub fn segments(&self, folder: &str) -> usize {
        let names = fs::read_dir(self.work().join(folder)).into_iter().flatten();
        names
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "segment"))
            .count()
    }

    /// There is what an undisturbed run leaves.
    pub fn assert_complete(&self, undisturbed: &Undisturbed) {
        self.check_outputs(undisturbed, true).unwrap();
        assert!(self.is_clean(undisturbed, false), "{}", self.left(undisturbed));
    }

    /// All steps with faults, then without from the first that failed. Says what came of it, or what is wrong.
    pub fn judge(&self, undisturbed: &Undisturbed, conditions: &Conditions) -> Result<&'static str, String> {
        let mut failed = None;
        let mut has_waited = false;
        let mut warnings = String::new();
        for (nth, steps) in self.scenario.steps.iter().enumerate() {
            for ended in self.run(steps, conditions) {
                self.check_ended(&ended, conditions)?;
                has_waited |= ended.has_waited;
                if ended.status.success() {
                    warnings += &ended.stderr;
                } else {
                    failed = failed.or(Some(nth));
                }
            }
            if failed.is_some() {
                break;
            }
        }
        let has_failed = preload::has_failed(&self.log()) || conditions.kill_after.is_some();
        let Some(first) = failed else {
            self.check_outputs(undisturbed, true).map_err(|wrong| format!("exit 0, but {wrong}"))?;
            let frames = self.frames_of_report()?;
            let has_warned = warnings.contains("WARN");
            if frames != undisturbed.report && !(frames.is_null() && has_warned) {
                return Err(format!("exit 0, but the report says {frames}, not {}", undisturbed.report));
            }
            return match (has_failed, self.is_clean(undisturbed, false), has_warned) {
                (false, true, _) => Ok("the fault did not happen"),
                (true, true, _) => Ok("succeeded all the same"),
                (_, false, true) => {
                    self.resume(undisturbed, 0)?;
                    Ok("succeeded, and left something with a warning")
                }
                _ => Err(format!("exit 0 without a warning, but it leaves {}", self.left(undisturbed))),
            };
        };
        self.check_outputs(undisturbed, false)?;
        self.resume(undisturbed, first)?;
        Ok(match (conditions.has_kill(), has_waited) {
            (true, _) => "killed, and resumed",
            (_, true) => "waited for space, ended at SIGTERM, and resumed",
            _ => "failed with a clear line, and resumed",
        })
    }

    /// A command has succeeded, said clearly why not, or was killed.
    pub fn check_ended(&self, ended: &Ended, conditions: &Conditions) -> Result<(), String> {
        let Ended { status, stderr, took, .. } = ended;
        if ended.is_late {
            return Err(format!("it hangs, or does not end at SIGTERM ({took:.1?}): {stderr}"));
        }
        let told: Vec<_> = stderr.lines().filter(|line| line.starts_with("hasn: ")).collect();
        let is_clear = |line: &&str| line[6..].contains(": ") && line.contains("; ");
        let is_told = match status.code() {
            Some(0) => told.is_empty(),
            None => status.signal() == Some(SIGKILL) && conditions.has_kill(),
            Some(130) => ended.has_waited,
            Some(_) => {
                !told.is_empty()
                    && told.iter().all(is_clear)
                    && (told.len() == 1 || self.scenario.has_many_errors)
            }
        };
        if !is_told || stderr.contains("panicked") {
            return Err(format!("it ends with {status}, and says: {stderr}"));
        }
        Ok(())
    }

    /// Runs the steps again, without faults, from the first that failed.
    fn resume(&self, undisturbed: &Undisturbed, first: usize) -> Result<(), String> {
        let healthy = Conditions::default();
        let steps: Vec<_> = self.scenario.steps[first..].iter().flat_map(|steps| steps.iter()).collect();
        for step in steps {
            for _ in 0..8 {
                let ended = self.run(std::slice::from_ref(step), &healthy).remove(0);
                // The folder of a plan is gone with the join.
                let is_complete = [ALREADY_EXISTS, NO_PLAN].iter().any(|said| ended.stderr.contains(said));
                if ended.is_late {
                    return Err(format!("resumed, it hangs: {}", ended.stderr));
                }
                if ended.status.success() || is_complete {
                    break;
                }
                let Some(segment) = self.scenario.segment_asked_for(&ended.stderr) else {
                    return Err(format!("resumed: {}: {}", ended.status, ended.stderr));
                };
                let ended = self.run(std::slice::from_ref(segment), &healthy).remove(0);
                if !ended.status.success() {
                    return Err(format!("resumed, the segment asked for: {}", ended.stderr));
                }
            }
        }
        self.check_outputs(undisturbed, true).map_err(|wrong| format!("resumed, {wrong}"))?;
        match self.is_clean(undisturbed, true) {
            true => Ok(()),
            false => Err(format!("resumed, it leaves {}", self.left(undisturbed))),
        }
    }

    /// Whether there is what an undisturbed run leaves. A report may be missing: it is written once, after the output
    /// has its name. The folder of a journal may be left, with its marks alone, where the file
    /// system did not remove it.
    pub fn is_clean(&self, undisturbed: &Undisturbed, may_leave_folder: bool) -> bool {
        let is_no_report = |name: &&String| *name != "report.json";
        let is_left = |name: &str| {
            let file = Path::new(name).file_name().unwrap_or_default();
            let is_mark = |name: &OsStr| ["joined", "joining", "lock"].iter().any(|mark| name == *mark);
            let folder =
                if is_mark(file) { name.rsplit_once('/').map_or(name, |(folder, _)| folder) } else { name };
            let mut entries = fs::read_dir(self.work().join(folder)).into_iter().flatten();
            let is_empty = entries.all(|entry| is_mark(&entry.expect("the folder is ours").file_name()));
            may_leave_folder && folder.ends_with(".hasn") && is_empty
        };
        let names = self.names();
        // A kill while the report is written leaves its temporary file.
        let is_no_report =
            |name: &&String| is_no_report(name) && !(may_leave_folder && name.starts_with(".writing-"));
        let counted = names.iter().filter(is_no_report).filter(|name| !is_left(name));
        counted.eq(undisturbed.names.iter().filter(is_no_report))
    }

    /// What is there and is not after an undisturbed run, or the other way round.
    pub fn left(&self, undisturbed: &Undisturbed) -> String {
        let names = self.names();
        let more: Vec<_> = names.iter().filter(|name| !undisturbed.names.contains(name)).collect();
        let less: Vec<_> = undisturbed.names.iter().filter(|name| !names.contains(name)).collect();
        format!("{more:?} and lacks {less:?}")
    }
}

impl Undisturbed {
    /// Runs a scenario once.
    pub fn of(scenario: &Scenario) -> Undisturbed {
        let inputs = Folder::new();
        (scenario.inputs)(&inputs);
        Trial::new(scenario, &inputs).undisturbed(inputs)
    }

    pub fn trial<'a>(&self, scenario: &'a Scenario) -> Trial<'a> {
        Trial::new(scenario, &self.inputs)
    }

    /// Frames that were encoded.
    pub fn frames(&self) -> usize {
        self.report[0]["encoded"].as_u64().expect("a scenario with a report") as usize
    }

    pub fn inputs(&self) -> &Folder {
        &self.inputs
    }
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder is ours") {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().expect("names are UTF-8"));
        if entry.path().is_dir() {
            list(&entry.path(), &format!("{name}/"), names);
        }
        names.push(name);
    }
}
