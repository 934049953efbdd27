//! Bands of rows as tasks, and the order in which threads run them.
//!
//! A stage declares the rows of tensors that each of its bands reads and writes. The rest is derived:
//!
//! - the order: tasks form waves, each a few waves behind its inputs, so that a band passes through all stages while it is
//!   in the cache and threads find tasks that are ready,
//! - the number of rows of a tensor in use at a time, which is the size of its ring,
//! - the dependencies of each task: the writers of the rows that it reads, and the readers and writers of those that it
//!   overwrites.
//!
//! A thread takes the first task of the order whose dependencies have ended, within a window; they are earlier in the order,
//! so the first unfinished task can always run. A thread that is late, because its task takes longer or another program has
//! its core, so holds up those tasks alone that need its own. The `unsafe` of `stages` relies on one guarantee: two tasks
//! that access the same row of memory, one of them writing, never run at the same time.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Searches for a task before the thread yields its core: a few microseconds.
const SPINS: usize = 20;

/// Tasks in the window per thread: with half of them, threads run out of tasks that are ready.
pub(super) const WINDOW: usize = 4;

/// Rows of a tensor, by its index. A tensor that is overwritten in place has rows H.. for its new content.
pub(super) type Rows = (usize, Range<usize>);

/// A loop over bands of rows.
pub(super) struct Stage<'a> {
    /// Name in reports.
    pub(super) name: &'static str,
    /// Number of bands.
    pub(super) bands: usize,
    /// The rows that a band reads.
    pub(super) reads: Box<dyn Fn(usize) -> Vec<Rows> + 'a>,
    /// The rows that a band writes.
    pub(super) writes: Box<dyn Fn(usize) -> Vec<Rows> + 'a>,
}

/// The rows of a tensor that are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// Those in use at a time, of this number of rows.
    Ring(usize),
    /// All of this number of rows, which may be filled before the graph runs.
    All(usize),
}

struct Task {
    stage: usize,
    band: usize,
    /// In `Graph::waits`.
    waits: Range<usize>,
}

/// Tasks in the order of execution.
pub(super) struct Graph {
    names: Vec<&'static str>,
    tasks: Vec<Task>,
    waits: Vec<u32>,
    /// Number of rows that each tensor keeps.
    pub(super) rings: Vec<usize>,
    /// The last run that took each task.
    taken: Vec<AtomicU32>,
    /// The last run that finished each task.
    done: Vec<AtomicU32>,
    run: u32,
    /// Time of each stage since the last [`Graph::take_times`].
    nanoseconds: Vec<AtomicU64>,
}

impl Graph {
    /// Builds a graph. Stages are in the order of their data; tensors are indices.
    pub(super) fn new(stages: &[Stage<'_>], tensors: &[Keep], threads: usize) -> Graph {
        let order = order(stages, tensors, threads);
        let rings = rings(&order, tensors, threads);
        let mut graph = Graph {
            names: stages.iter().map(|stage| stage.name).collect(),
            tasks: Vec::with_capacity(order.len()),
            waits: Vec::new(),
            taken: order.iter().map(|_| AtomicU32::new(0)).collect(),
            done: order.iter().map(|_| AtomicU32::new(0)).collect(),
            rings,
            run: 0,
            nanoseconds: stages.iter().map(|_| AtomicU64::new(0)).collect(),
        };
        let mut states: Vec<Vec<RowState>> = tensors
            .iter()
            .zip(&graph.rings)
            .map(|(keep, &rows)| (0..rows).map(|row| RowState::new(keep, row)).collect())
            .collect();
        for (index, planned) in order.into_iter().enumerate() {
            let index = index as u32;
            let mut waits = Vec::new();
            for (tensor, row) in each(&planned.reads) {
                let rows = graph.rings[tensor];
                let state = &mut states[tensor][row % rows];
                assert_eq!(state.holds, Some(row), "{}: tensor {tensor}", stages[planned.stage].name);
                waits.extend(state.writer);
                state.readers.push(index);
            }
            for (tensor, row) in each(&planned.writes) {
                let rows = graph.rings[tensor];
                let state = &mut states[tensor][row % rows];
                waits.extend(state.writer);
                waits.append(&mut state.readers);
                (state.holds, state.writer) = (Some(row), Some(index));
            }
            waits.sort_unstable();
            waits.dedup();
            let start = graph.waits.len();
            graph.waits.extend(waits.into_iter().filter(|&before| before != index));
            let waits = start..graph.waits.len();
            graph.tasks.push(Task { stage: planned.stage, band: planned.band, waits });
        }
        graph
    }

    /// Calls `work` with stage, band and a worker's scratch for every task, on one thread of the current rayon pool per
    /// worker.
    pub(super) fn run<W: Send>(&mut self, workers: &mut [W], work: impl Fn(usize, usize, &mut W) + Sync) {
        self.run = self.run.checked_add(1).unwrap_or_else(|| {
            self.taken.iter_mut().chain(&mut self.done).for_each(|run| *run.get_mut() = 0);
            1
        });
        let (first, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let window = WINDOW * workers.len();
        let (graph, work) = (&*self, &work);
        let worker = |scratch: &mut W| {
            let on_panic = SetOnDrop(&failed);
            let mut tries = 0;
            while first.load(Ordering::Relaxed) < graph.tasks.len() && !failed.load(Ordering::Relaxed) {
                let Some(index) = graph.take(&first, window) else {
                    tries += 1;
                    // A late thread is some microseconds late, or lost its core: then the other thread there needs it.
                    if tries < SPINS {
                        std::hint::spin_loop()
                    } else {
                        std::thread::yield_now()
                    }
                    continue;
                };
                tries = 0;
                let task = &graph.tasks[index];
                let start = Instant::now();
                work(task.stage, task.band, scratch);
                let nanoseconds = start.elapsed().as_nanos() as u64;
                graph.nanoseconds[task.stage].fetch_add(nanoseconds, Ordering::Relaxed);
                graph.done[index].store(graph.run, Ordering::Release);
            }
            std::mem::forget(on_panic);
        };
        match workers {
            [one] => worker(one),
            several => rayon::scope(|scope| {
                let worker = &worker;
                several.iter_mut().for_each(|scratch| scope.spawn(move |_| worker(scratch)));
            }),
        }
    }

    /// Returns the names of the stages and their seconds since the last call, summed over threads.
    pub(super) fn take_times(&mut self) -> impl Iterator<Item = (&'static str, f64)> {
        let seconds = self.nanoseconds.iter_mut().map(|sum| std::mem::take(sum.get_mut()) as f64 * 1e-9);
        self.names.iter().copied().zip(seconds)
    }

    /// Number of stages.
    #[cfg(test)]
    pub(super) fn stages(&self) -> usize {
        self.names.len()
    }

    /// The stage of each task and the tasks that it waits for.
    #[cfg(test)]
    pub(super) fn tasks(&self) -> impl Iterator<Item = (usize, &[u32])> {
        self.tasks.iter().map(|task| (task.stage, &self.waits[task.waits.clone()]))
    }

    /// Reorders the tasks at random, within their dependencies.
    #[cfg(test)]
    pub(super) fn shuffle(&mut self, seed: u64) {
        let mut random = seed;
        let mut next_below = |n: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % n
        };
        let mut place = vec![None; self.tasks.len()];
        let mut order = Vec::new();
        while order.len() < self.tasks.len() {
            let is_ready = |index: &usize| {
                let mut waits = self.waits[self.tasks[*index].waits.clone()].iter();
                place[*index].is_none() && waits.all(|&before| place[before as usize].is_some())
            };
            let ready: Vec<usize> = (0..self.tasks.len()).filter(is_ready).collect();
            let chosen = ready[next_below(ready.len())];
            place[chosen] = Some(order.len() as u32);
            order.push(chosen);
        }
        self.waits.iter_mut().for_each(|before| *before = place[*before as usize].expect("all have a place"));
        let mut tasks: Vec<Option<Task>> = std::mem::take(&mut self.tasks).into_iter().map(Some).collect();
        self.tasks = order.into_iter().map(|index| tasks[index].take().expect("once")).collect();
    }

    /// Takes the first task that is ready in the window from `first` on, before which all are taken.
    fn take(&self, first: &AtomicUsize, window: usize) -> Option<usize> {
        let start = first.load(Ordering::Relaxed);
        let mut all_before_are_taken = true;
        for index in start..(start + window).min(self.tasks.len()) {
            let taken = &self.taken[index];
            if taken.load(Ordering::Relaxed) == self.run {
                if all_before_are_taken {
                    first.fetch_max(index + 1, Ordering::Relaxed);
                }
                continue;
            }
            if self.is_ready(index) && taken.swap(self.run, Ordering::Relaxed) != self.run {
                return Some(index);
            }
            all_before_are_taken = false;
        }
        None
    }

    /// Whether the dependencies of a task have ended.
    fn is_ready(&self, index: usize) -> bool {
        // The latest is the most likely to be missing.
        let mut waits = self.waits[self.tasks[index].waits.clone()].iter().rev();
        waits.all(|&before| self.done[before as usize].load(Ordering::Acquire) == self.run)
    }
}

/// Signals a panic to the other threads.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Planned {
    stage: usize,
    band: usize,
    wave: usize,
    reads: Vec<Rows>,
    writes: Vec<Rows>,
}

/// A row of memory during the build of a graph.
struct RowState {
    holds: Option<usize>,
    writer: Option<u32>,
    readers: Vec<u32>,
}

impl RowState {
    fn new(keep: &Keep, row: usize) -> RowState {
        let holds = matches!(keep, Keep::All(_)).then_some(row);
        RowState { holds, writer: None, readers: Vec::new() }
    }
}

fn each(rows: &[Rows]) -> impl Iterator<Item = (usize, usize)> {
    rows.iter().flat_map(|(tensor, rows)| rows.clone().map(|row| (*tensor, row)))
}

/// Waves between a task and its inputs, so that `threads` tasks are in flight in between and no thread waits for one that
/// is slightly late.
fn slack(stages: usize, threads: usize) -> usize {
    if threads == 1 { 1 } else { 1 + threads.div_ceil(stages) }
}

fn order(stages: &[Stage<'_>], tensors: &[Keep], threads: usize) -> Vec<Planned> {
    let slack = slack(stages.len(), threads);
    let mut written: Vec<Vec<usize>> = tensors.iter().map(|_| Vec::new()).collect();
    let mut order = Vec::new();
    for (stage, of) in stages.iter().enumerate() {
        for band in 0..of.bands {
            let (reads, writes) = ((of.reads)(band), (of.writes)(band));
            let after = each(&reads).filter_map(|(tensor, row)| written[tensor].get(row)).max();
            let wave = after.map_or(0, |wave| wave + slack).max(if stage == 0 { band } else { 0 });
            for (tensor, row) in each(&writes) {
                let waves = &mut written[tensor];
                waves.resize(waves.len().max(row + 1), 0);
                waves[row] = wave;
            }
            order.push(Planned { stage, band, wave, reads, writes });
        }
    }
    // The latest stages first: their inputs have been in the cache the longest.
    order.sort_by_key(|task| (task.wave, std::cmp::Reverse(task.stage)));
    order
}

/// Number of rows that each tensor keeps: at any time from the first that is still to be read to the last written one,
/// plus what is written while other threads still read.
fn rings(order: &[Planned], tensors: &[Keep], threads: usize) -> Vec<usize> {
    let mut last_read: Vec<Vec<usize>> = tensors.iter().map(|_| Vec::new()).collect();
    for (index, task) in order.iter().enumerate() {
        for (tensor, row) in each(&task.reads) {
            let reads = &mut last_read[tensor];
            reads.resize(reads.len().max(row + 1), 0);
            reads[row] = index + 2 * threads;
        }
    }
    let mut rings: Vec<usize> = tensors.iter().map(|_| 1).collect();
    let mut first_alive = vec![0; tensors.len()];
    for (index, task) in order.iter().enumerate() {
        for (tensor, row) in each(&task.writes) {
            let first = &mut first_alive[tensor];
            while last_read[tensor].get(*first).is_some_and(|last| *last < index) {
                *first += 1;
            }
            rings[tensor] = rings[tensor].max((row + 1).saturating_sub(*first));
        }
    }
    let kept = |(keep, ring): (&Keep, usize)| match *keep {
        Keep::Ring(all) => ring.min(all),
        Keep::All(all) => all,
    };
    tensors.iter().zip(rings).map(kept).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stage<'a>(
        bands: usize,
        reads: impl Fn(usize) -> Vec<Rows> + 'a,
        writes: impl Fn(usize) -> Vec<Rows> + 'a,
    ) -> Stage<'a> {
        Stage { name: "test", bands, reads: Box::new(reads), writes: Box::new(writes) }
    }

    /// Stages from tensor 0, which is filled before, to tensor 1 and back, each reading three rows.
    fn in_place(rows: usize, threads: usize) -> Graph {
        let round = move |y: usize| y.saturating_sub(1)..(y + 2).min(rows);
        let stages = [
            stage(rows, move |y| vec![(0, round(y))], |y| vec![(1, y..y + 1)]),
            stage(rows, move |y| vec![(1, round(y))], move |y| vec![(0, rows + y..rows + y + 1)]),
        ];
        Graph::new(&stages, &[Keep::All(rows), Keep::Ring(rows)], threads)
    }

    /// For each task, all tasks that end before it begins.
    fn before(graph: &Graph) -> Vec<Vec<bool>> {
        let mut before: Vec<Vec<bool>> = Vec::new();
        for task in &graph.tasks {
            let mut all = vec![false; graph.tasks.len()];
            for &wait in &graph.waits[task.waits.clone()] {
                all[wait as usize] = true;
                all.iter_mut().zip(&before[wait as usize]).for_each(|(all, before)| *all |= before);
            }
            before.push(all);
        }
        before
    }

    #[test]
    fn tasks_that_share_a_row_of_memory_are_ordered_where_one_writes() {
        for (rows, threads) in [(1, 1), (9, 2), (40, 1), (40, 3), (200, 8)] {
            let graph = in_place(rows, threads);
            let places = |task: &Task| -> [Vec<(usize, usize)>; 2] {
                let near = task.band.saturating_sub(1)..(task.band + 2).min(rows);
                let (from, to) = (task.stage, 1 - task.stage);
                [
                    near.map(|y| (from, y % graph.rings[from])).collect(),
                    vec![(to, task.band % graph.rings[to])],
                ]
            };
            let before = before(&graph);
            for (i, first) in graph.tasks.iter().enumerate() {
                for (j, second) in graph.tasks.iter().enumerate().skip(i + 1) {
                    let ([reads, writes], [reads2, writes2]) = (places(first), places(second));
                    let clash =
                        |a: &[(usize, usize)], b: &[(usize, usize)]| a.iter().any(|place| b.contains(place));
                    if clash(&writes, &writes2) || clash(&writes, &reads2) || clash(&reads, &writes2) {
                        assert!(
                            before[j][i],
                            "{rows} rows, {threads} threads: task {j} does not wait for {i}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_ring_holds_the_rows_in_use_and_no_more() {
        let (low, high) = (in_place(40, 1).rings[1], in_place(4000, 1).rings[1]);
        assert_eq!(low, high, "a ring does not grow with the frame");
        assert!((3..20).contains(&low), "{low}");
        assert!(in_place(4000, 16).rings[1] > low, "more threads have more rows in flight");
    }

    #[test]
    fn every_task_runs_once_in_every_run() {
        let mut graph = in_place(50, 3);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for _ in 0..3 {
            let counts: Vec<AtomicU32> = (0..100).map(|_| AtomicU32::new(0)).collect();
            pool.install(|| {
                graph.run(&mut [(); 3], |stage, band, ()| {
                    counts[50 * stage + band].fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_late_task_holds_up_only_those_that_need_it() {
        let mut graph = in_place(50, 2);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (follows, deadline) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(60));
        pool.install(|| {
            graph.run(&mut [(); 2], |stage, band, ()| match (stage, band) {
                // A task of the second stage, which needs the first band of the first, comes before its fourth.
                (0, 0) => {
                    while !follows.load(Ordering::Relaxed) {
                        assert!(Instant::now() < deadline, "the other thread waits");
                        std::thread::yield_now();
                    }
                }
                (0, 3) => follows.store(true, Ordering::Relaxed),
                _ => {}
            });
        });
    }

    #[test]
    fn a_panic_in_a_task_ends_the_run_on_every_thread() {
        let mut graph = in_place(50, 3);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let run = std::panic::AssertUnwindSafe(|| {
            pool.install(|| graph.run(&mut [(); 3], |_, band, ()| assert_ne!(band, 25, "on purpose")));
        });
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
