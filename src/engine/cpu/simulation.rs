//! The time and the memory traffic of a frame on other numbers of threads, simulated with costs measured on one.
//!
//! In: the graphs of a frame, and the seconds of a task of each stage. A simulated thread does what [`Graph::run`] does: it
//! takes the first task in the window that is ready. Every thread has a core of its own.
//!
//! It must not know frames or workers: `engine::tests::cores` does.

use super::graph::{Graph, Keep, WINDOW};
use super::net::{Net, StageTime};
use super::tensors::*;
use super::{Level, Precision};
use crate::model::{Model, Sizes};

/// From one thread's start on the tasks of a graph to the next one's: threads are woken one after another.
const WAKE_S: f64 = 2e-6;

/// What a frame costs on one thread.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    /// Seconds of each stage in a frame, in the order of [`Net::take_stage_times`].
    pub(crate) stages: Vec<f64>,
    /// Seconds between the graphs.
    pub(crate) between: f64,
}

impl Costs {
    /// Takes the times of the network's last frame, which ran for `seconds` on one thread.
    pub(crate) fn of_last_frame(net: &mut Net, seconds: f64) -> Costs {
        let stages: Vec<f64> = net.take_stage_times().iter().map(|stage: &StageTime| stage.seconds).collect();
        let between = seconds - stages.iter().sum::<f64>();
        Costs { stages, between }
    }

    /// Seconds of the frame on one thread.
    pub(crate) fn total(&self) -> f64 {
        self.stages.iter().sum::<f64>() + self.between
    }
}

/// The graphs of a frame for a number of threads.
pub(crate) struct SimulatedNet {
    sizes: Sizes,
    shape: Shape,
    enter: Graph,
    block: Graph,
    leave: Graph,
    threads: usize,
}

impl SimulatedNet {
    pub(crate) fn new(
        model: &Model,
        level: Level,
        precision: Precision,
        (width, height): (usize, usize),
        threads: usize,
    ) -> SimulatedNet {
        let sizes = model.sizes;
        let shape = Shape::new(&sizes, level.kernels(precision).packing, height, width);
        SimulatedNet {
            sizes,
            enter: enter_graph(&shape, threads),
            block: block_graph(&shape, threads),
            leave: leave_graph(&shape, threads, false),
            shape,
            threads,
        }
    }

    /// Seconds of a frame. What lies between the graphs runs on one thread.
    pub(crate) fn frame_s(&self, costs: &Costs) -> f64 {
        let mut rest = &costs.stages[..];
        let mut graph_s = |graph: &Graph, runs: usize| {
            let (stages, others) = rest.split_at(graph.stages());
            rest = others;
            runs as f64 * makespan(graph, &per_task(graph, stages, runs), self.threads)
        };
        let graphs_s =
            graph_s(&self.enter, 1) + graph_s(&self.block, self.sizes.blocks) + graph_s(&self.leave, 1);
        graphs_s + costs.between
    }

    /// Bytes that a frame reads from memory and writes to it, where `cache` bytes hold what the threads use again soon.
    ///
    /// The trunk and the LR frame stream through every graph. Of the rings the part that exceeds the cache is written to
    /// memory and read again.
    pub(crate) fn memory_bytes(&self, cache: f64) -> f64 {
        let shape = &self.shape;
        let (height, row) = (shape.height as f64, |tensor: usize| 4.0 * shape.row_len[tensor] as f64);
        let rings = |graph: &Graph, first: usize| {
            let keeps = shape.keeps(first);
            let used = (first..TENSORS).filter(|&tensor| graph.rings[tensor] > 1);
            let (mut ring_bytes, mut all_bytes) = (0.0, 0.0);
            for tensor in used {
                let (Keep::Ring(rows) | Keep::All(rows)) = keeps[tensor];
                ring_bytes += graph.rings[tensor] as f64 * row(tensor);
                all_bytes += rows as f64 * row(tensor);
            }
            2.0 * all_bytes * (1.0 - cache / ring_bytes).max(0.0)
        };
        let y = height * (shape.span.width * self.sizes.upsampler_channels() * 4) as f64;
        let enter = height * (2.0 * row(X) + row(Z));
        let block = height * 2.0 * row(Z) + rings(&self.block, P);
        let leave = height * (row(X) + row(Z)) + y + rings(&self.leave, W);
        enter + self.sizes.blocks as f64 * block + leave
    }
}

/// The seconds of a task of each stage, from those of all tasks in a number of runs.
fn per_task(graph: &Graph, stages: &[f64], runs: usize) -> Vec<f64> {
    let mut counts = vec![0; stages.len()];
    graph.tasks().for_each(|(stage, _)| counts[stage] += 1);
    stages.iter().zip(counts).map(|(seconds, count)| seconds / (runs * count) as f64).collect()
}

/// Seconds from the start of a graph to the end of its last task.
fn makespan(graph: &Graph, task_s: &[f64], threads: usize) -> f64 {
    let tasks: Vec<(usize, &[u32])> = graph.tasks().collect();
    let window = WINDOW * threads;
    let mut thread_s: Vec<f64> = (0..threads).map(|thread| WAKE_S * thread as f64).collect();
    // Infinite until the task is taken.
    let mut ends = vec![f64::INFINITY; tasks.len()];
    let mut first = 0;
    while first < tasks.len() {
        let thread = (0..threads).min_by(|&a, &b| thread_s[a].total_cmp(&thread_s[b])).expect("threads");
        let now = thread_s[thread];
        let is_ready = |&index: &usize| {
            ends[index].is_infinite() && tasks[index].1.iter().all(|&before| ends[before as usize] <= now)
        };
        let ready = (first..(first + window).min(tasks.len())).find(is_ready);
        match ready {
            Some(index) => {
                thread_s[thread] = now + task_s[tasks[index].0];
                ends[index] = thread_s[thread];
            }
            // The next task that ends may make one ready.
            None => {
                let later = thread_s.iter().copied().filter(|&other| other > now);
                thread_s[thread] = later.fold(f64::INFINITY, f64::min);
            }
        }
        while ends.get(first).is_some_and(|end| end.is_finite()) {
            first += 1;
        }
    }
    ends.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue;

    /// Seconds of the longest chain of tasks.
    fn critical_path(graph: &Graph, task_s: &[f64]) -> f64 {
        let mut ends: Vec<f64> = Vec::new();
        for (stage, waits) in graph.tasks() {
            let start = waits.iter().map(|&before| ends[before as usize]).fold(0.0, f64::max);
            ends.push(start + task_s[stage]);
        }
        ends.into_iter().fold(0.0, f64::max)
    }

    fn net(threads: usize, size: (usize, usize)) -> SimulatedNet {
        let model = catalogue::open("hasn-lite-x2").unwrap();
        SimulatedNet::new(&model, *Level::available().last().unwrap(), Precision::F32, size, threads)
    }

    #[test]
    fn one_thread_takes_the_sum_of_all_costs() {
        let net = net(1, (64, 203));
        let stages = net.enter.stages() + net.block.stages() + net.leave.stages();
        let costs = Costs { stages: (1..=stages).map(|i| i as f64).collect(), between: 0.5 };
        assert!((net.frame_s(&costs) / costs.total() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn threads_are_bounded_by_the_work_and_by_the_longest_chain() {
        let mut last = f64::INFINITY;
        for threads in [1, 2, 3, 4, 8, 16, 32, 64] {
            let net = net(threads, (64, 1080));
            // Seconds against which the waking of threads is nothing.
            let task_s: Vec<f64> = (0..net.block.stages()).map(|stage| (1 + stage % 3) as f64).collect();
            let work: f64 = net.block.tasks().map(|(stage, _)| task_s[stage]).sum();
            let seconds = makespan(&net.block, &task_s, threads);
            let chain = critical_path(&net.block, &task_s);
            assert!(seconds >= chain && seconds * threads as f64 >= work * (1.0 - 1e-9));
            // Graham's bound of any schedule that lets no thread wait while a task is ready; a fixed order is near it.
            assert!(seconds <= 1.1 * (work / threads as f64 + chain), "{threads} threads: {seconds}");
            assert!(seconds < last, "{threads} threads: {seconds} s, fewer {last}");
            last = seconds;
        }
    }

    #[test]
    fn a_frame_in_full_hd_gains_from_32_cores() {
        let model = catalogue::open("hasn-lite-x2").unwrap();
        // Milliseconds of the stages in f32 on one core of a Zen 4.
        let stages_ms = [1.2, 12.8, 159.0, 25.0, 1.9, 2.4, 252.0, 92.0, 169.0, 143.0, 8.3, 87.0];
        let costs = Costs { stages: stages_ms.map(|ms| 1e-3 * ms).to_vec(), between: 1e-3 };
        let level = *Level::available().last().unwrap();
        for (threads, least) in [(8, 7.8), (16, 15.0), (32, 28.0)] {
            let net = SimulatedNet::new(&model, level, Precision::F32, (1920, 1080), threads);
            let speedup = costs.total() / net.frame_s(&costs);
            assert!(speedup > least, "{threads} threads: {speedup}");
        }
    }

    #[test]
    fn a_cache_that_holds_the_rings_leaves_the_trunk_to_stream() {
        let net = net(2, (64, 203));
        let streamed = net.memory_bytes(f64::MAX);
        let trunk = 4.0 * (net.shape.row_len[Z] * 203) as f64;
        assert!(streamed > 2.0 * trunk * net.sizes.blocks as f64);
        assert!(net.memory_bytes(0.0) > 2.0 * streamed);
    }
}
