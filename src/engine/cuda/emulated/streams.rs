//! The emulated device: memory, streams, events, graphs.
//!
//! Streams are lazy: no work runs until the host waits for an event, and then work that no event orders runs in random
//! order, which reveals a missing wait. A virtual clock gives the times of copies and launches that overlap. It must not
//! know what kernels compute.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::super::device::{Buffer, Device, GRID_YZ_MAX, Launch, MemoryInfo, Pinned};
use super::{KernelInfo, Options, OwnedLaunch, Registry, Traffic};
use crate::error::{Error, Result};

/// A copy or a launch on the virtual clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Span {
    pub(in super::super) kind: SpanKind,
    /// Index in the order of creation.
    pub(in super::super) stream: usize,
    pub(in super::super) start_ns: u64,
    pub(in super::super) end_ns: u64,
    pub(in super::super) traffic: Traffic,
}

/// Each kind has a hardware engine of its own, which does one at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) enum SpanKind {
    CopyIn,
    CopyOut,
    Kernel(&'static str),
}

/// [`Device`] on the host.
#[derive(Clone)]
pub(in super::super) struct Emulated {
    options: Options,
    state: Rc<RefCell<State>>,
}

struct State {
    registry: Registry,
    streams: Vec<Stream>,
    /// The ticket of each event's last record.
    events: Vec<Option<usize>>,
    /// Time at which each record was reached.
    tickets: Vec<Option<u64>>,
    /// Time from which each engine is free: in, out, compute.
    free_ns: [u64; 3],
    /// Clock of the host.
    now_ns: u64,
    trace: Vec<Span>,
    captured: Option<(usize, Vec<OwnedLaunch>)>,
    waits: usize,
    allocations: usize,
    launches: usize,
    used: usize,
    random: u64,
    /// Permanent, as a driver's.
    error: Option<Error>,
}

#[derive(Default)]
struct Stream {
    work: VecDeque<Work>,
    time_ns: u64,
}

enum Work {
    Copy(Copy),
    Launch(OwnedLaunch, u64),
    /// A ticket, and the time of the call.
    Record(usize, u64),
    Wait(usize),
}

struct Copy {
    kind: SpanKind,
    to: *mut u8,
    from: *const u8,
    len: usize,
    given_ns: u64,
    /// Both memories, which must exist when the copy runs.
    alive: [Weak<()>; 2],
}

/// Memory whose bits are initially all ones: NaN in f16 and in f32.
struct Memory {
    start: *mut u8,
    len: usize,
    alive: Arc<()>,
}

/// Bytes between allocations, so that an access outside of one does not hit another.
const GAP: usize = 1 << 20;

impl Memory {
    fn new(len: usize) -> Memory {
        assert!(len > 0, "an allocation has bytes");
        // SAFETY: the layout is not empty.
        let gap = unsafe { alloc(Memory::layout(len)) };
        assert!(!gap.is_null(), "no {len} bytes");
        // SAFETY: the layout is of a gap, `len` bytes and another gap.
        let start = unsafe {
            let start = gap.add(GAP);
            start.write_bytes(0xff, len);
            start
        };
        Memory { start, len, alive: Arc::new(()) }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len + 2 * GAP, 256).expect("less than there are addresses")
    }

    fn copy_to(&self, to: &Memory, len: usize, kind: SpanKind, given_ns: u64) -> Work {
        assert!(len <= self.len && len <= to.len, "{len} bytes of {} to {}", self.len, to.len);
        let alive = [&self.alive, &to.alive].map(Arc::downgrade);
        Work::Copy(Copy { kind, to: to.start, from: self.start, len, given_ns, alive })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, a gap before the start.
        unsafe { dealloc(self.start.sub(GAP), Memory::layout(self.len)) };
    }
}

/// Memory of the device.
pub(in super::super) struct DeviceMemory {
    memory: Memory,
    state: Rc<RefCell<State>>,
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.used -= self.memory.len;
        state.registry.freed(self.memory.start);
    }
}

impl Buffer for DeviceMemory {
    fn address(&self) -> u64 {
        self.memory.start as u64
    }

    fn len(&self) -> usize {
        self.memory.len
    }
}

/// Stands for page-locked memory.
pub(in super::super) struct PinnedMemory(Memory);

// SAFETY: it is plain memory that one owner at a time reads and writes.
unsafe impl Send for PinnedMemory {}

impl Pinned for PinnedMemory {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is initialised and belongs to the owner.
        unsafe { std::slice::from_raw_parts(self.0.start, self.0.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.start, self.0.len) }
    }
}

impl Emulated {
    pub(in super::super) fn new(options: Options) -> Emulated {
        let state = State {
            registry: Registry::new(options.library.clone()),
            streams: Vec::new(),
            events: Vec::new(),
            tickets: Vec::new(),
            free_ns: [0; 3],
            now_ns: 0,
            trace: Vec::new(),
            captured: None,
            waits: 0,
            allocations: 0,
            launches: 0,
            used: 0,
            random: options.seed,
            error: None,
        };
        Emulated { options, state: Rc::new(RefCell::new(state)) }
    }

    pub(in super::super) fn kernels(&self) -> Vec<KernelInfo> {
        self.options.library.kernels()
    }

    /// Returns a handle to the trace, which outlives the device's owner.
    pub(in super::super) fn watch(&self) -> Watch {
        Watch(self.state.clone())
    }

    fn give(&self, stream: usize, work: Work) -> Result<()> {
        let mut state = self.state.borrow_mut();
        assert!(state.captured.is_none(), "only launches are captured");
        state.streams[stream].work.push_back(work);
        Ok(())
    }

    /// Runs the first piece of work of a stream.
    fn step(&self, state: &mut State, stream: usize) {
        let Options { lanes, copies, launch_ns, copy_bytes_per_us, .. } = &self.options;
        let work = state.streams[stream].work.pop_front().expect("the stream has work");
        match work {
            Work::Record(ticket, given_ns) => {
                state.tickets[ticket] = Some(state.streams[stream].time_ns.max(given_ns));
            }
            Work::Wait(ticket) => {
                let seen_ns = state.tickets[ticket].expect("it is ready");
                let time_ns = &mut state.streams[stream].time_ns;
                *time_ns = seen_ns.max(*time_ns);
            }
            Work::Copy(Copy { kind, to, from, len, given_ns, alive }) => {
                assert!(
                    alive.iter().all(|memory| memory.upgrade().is_some()),
                    "{kind:?} of {len} bytes: the memory was dropped before the copy was completed"
                );
                // SAFETY: both exist and are long enough; the caller does not use them until the copy is completed.
                unsafe { to.copy_from(from, len) };
                let engine = usize::from(kind == SpanKind::CopyOut);
                let cost_ns = 1000 * len as u64 / copy_bytes_per_us;
                state.happen(stream, engine, kind, given_ns, cost_ns, Traffic::default());
            }
            Work::Launch(launch, given_ns) => {
                let count = state.launches;
                state.launches += 1;
                if self.options.fail_launch == Some(count) {
                    let problem = "a launch failed: unspecified launch failure".to_owned();
                    state.error = Some(Error::new(self.name(), problem, "look at the system's log"));
                }
                if state.error.is_some() {
                    return;
                }
                let mut traffic = Traffic::default();
                let cost_ns = launch_ns.unwrap_or_else(|| {
                    let seed = state.random;
                    match state.registry.run(&launch, *lanes, *copies, seed) {
                        Ok(touched) => traffic = touched,
                        Err(problem) => {
                            state.error = Some(Error::new(self.name(), problem, "mend the kernel"))
                        }
                    }
                    // The overhead of a launch, and 2 TB/s.
                    2000 + (traffic.read + traffic.written) * 32 / 2000
                });
                state.happen(stream, 2, SpanKind::Kernel(launch.kernel), given_ns, cost_ns, traffic);
            }
        }
    }
}

impl State {
    fn happen(
        &mut self,
        stream: usize,
        engine: usize,
        kind: SpanKind,
        given_ns: u64,
        cost_ns: u64,
        traffic: Traffic,
    ) {
        let start_ns = self.streams[stream].time_ns.max(self.free_ns[engine]).max(given_ns);
        let end_ns = start_ns + cost_ns;
        self.streams[stream].time_ns = end_ns;
        self.free_ns[engine] = end_ns;
        self.trace.push(Span { kind, stream, start_ns, end_ns, traffic });
    }

    /// Streams whose first piece of work is ready.
    fn ready(&self) -> Vec<usize> {
        let is_ready = |stream: &usize| match self.streams[*stream].work.front() {
            Some(Work::Wait(ticket)) => self.tickets[*ticket].is_some(),
            front => front.is_some(),
        };
        (0..self.streams.len()).filter(is_ready).collect()
    }

    /// A random number below `end` (Knuth's linear congruential generator).
    fn below(&mut self, end: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % end
    }
}

/// The trace of a device.
pub(in super::super) struct Watch(Rc<RefCell<State>>);

impl Watch {
    pub(in super::super) fn trace(&self) -> Vec<Span> {
        self.0.borrow().trace.clone()
    }

    /// Allocated bytes of the device's memory.
    pub(in super::super) fn used(&self) -> usize {
        self.0.borrow().used
    }
}

impl Device for Emulated {
    type Buffer = DeviceMemory;
    type Pinned = PinnedMemory;
    type Stream = usize;
    type Event = usize;
    type Graph = Vec<OwnedLaunch>;

    fn name(&self) -> String {
        "emulated device".into()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let total = self.options.memory;
        Ok(MemoryInfo { free: total - self.state.borrow().used, total })
    }

    fn shared_max(&self) -> usize {
        self.options.shared_max
    }

    fn alloc(&self, len: usize) -> Result<DeviceMemory> {
        assert!(self.state.borrow().captured.is_none(), "nothing is allocated in a capture");
        if len > self.memory()?.free {
            let problem = format!("{len} bytes of its memory are not available");
            return Err(Error::new(self.name(), problem, "use --engine cpu"));
        }
        let memory = Memory::new(len);
        let mut state = self.state.borrow_mut();
        state.used += len;
        let common = self.options.common == Some(state.allocations);
        state.allocations += 1;
        state.registry.allocated(memory.start, len, common);
        Ok(DeviceMemory { memory, state: self.state.clone() })
    }

    fn alloc_pinned(&self, len: usize) -> Result<PinnedMemory> {
        assert!(self.state.borrow().captured.is_none(), "nothing is allocated in a capture");
        let mut pinned = PinnedMemory(Memory::new(len));
        pinned.bytes_mut().fill(0);
        Ok(pinned)
    }

    fn stream(&self) -> Result<usize> {
        let mut state = self.state.borrow_mut();
        state.streams.push(Stream::default());
        Ok(state.streams.len() - 1)
    }

    fn event(&self) -> Result<usize> {
        let mut state = self.state.borrow_mut();
        state.events.push(None);
        Ok(state.events.len() - 1)
    }

    fn timer(&self) -> Result<usize> {
        self.event()
    }

    fn elapsed_s(&self, from: &usize, to: &usize) -> Result<f64> {
        let state = self.state.borrow();
        let reached = |event: usize| {
            state.events[event].and_then(|ticket| state.tickets[ticket]).expect("it is completed")
        };
        Ok((reached(*to) - reached(*from)) as f64 * 1e-9)
    }

    fn now_s(&self) -> f64 {
        self.state.borrow().now_ns as f64 * 1e-9
    }

    unsafe fn copy_in(&self, stream: &usize, to: &DeviceMemory, from: &PinnedMemory) -> Result<()> {
        let given_ns = self.state.borrow().now_ns;
        self.give(*stream, from.0.copy_to(&to.memory, from.0.len, SpanKind::CopyIn, given_ns))
    }

    unsafe fn copy_out(&self, stream: &usize, to: &mut PinnedMemory, from: &DeviceMemory) -> Result<()> {
        // Overwrites stale content, so that it is not mistaken for the copy.
        to.bytes_mut().fill(0xff);
        let given_ns = self.state.borrow().now_ns;
        self.give(*stream, from.memory.copy_to(&to.0, to.0.len, SpanKind::CopyOut, given_ns))
    }

    unsafe fn launch(&self, stream: &usize, launch: Launch<'_>) -> Result<()> {
        let Launch { kernel, grid, threads, shared, args } = launch;
        if shared as usize > self.options.shared_max
            || grid.contains(&0)
            || grid[1].max(grid[2]) > GRID_YZ_MAX
        {
            let problem = format!(
                "{kernel} with a grid of {grid:?} and {shared} bytes of shared memory is not possible"
            );
            return Err(Error::new(self.name(), problem, "mend the launch"));
        }
        let launch = OwnedLaunch { kernel, grid, threads, shared, args: args.to_vec() };
        let mut state = self.state.borrow_mut();
        if let Some((capturing, launches)) = &mut state.captured {
            assert_eq!(capturing, stream, "a launch on another stream in a capture");
            launches.push(launch);
            return Ok(());
        }
        let given_ns = state.now_ns;
        state.streams[*stream].work.push_back(Work::Launch(launch, given_ns));
        Ok(())
    }

    fn record(&self, stream: &usize, event: &usize) -> Result<()> {
        let (ticket, given_ns) = {
            let mut state = self.state.borrow_mut();
            state.tickets.push(None);
            let ticket = state.tickets.len() - 1;
            state.events[*event] = Some(ticket);
            (ticket, state.now_ns)
        };
        self.give(*stream, Work::Record(ticket, given_ns))
    }

    fn wait(&self, stream: &usize, event: &usize) -> Result<()> {
        let (count, ticket) = {
            let mut state = self.state.borrow_mut();
            state.waits += 1;
            (state.waits - 1, state.events[*event])
        };
        match ticket {
            Some(ticket) if self.options.forget_wait != Some(count) => self.give(*stream, Work::Wait(ticket)),
            _ => Ok(()),
        }
    }

    fn synchronize(&self, event: &usize) -> Result<()> {
        let mut state = self.state.borrow_mut();
        assert!(state.captured.is_none(), "no wait is allowed in a capture");
        let Some(ticket) = state.events[*event] else { return Ok(()) };
        let (mut more, mut stream) = (state.below(4), 0);
        loop {
            if state.tickets[ticket].is_some() {
                // A device also proceeds without being waited for.
                if more == 0 {
                    break;
                }
                more -= 1;
            }
            let ready = state.ready();
            if ready.is_empty() {
                assert!(state.tickets[ticket].is_some(), "streams wait for each other");
                break;
            }
            // Mostly the same stream, so that one gets far ahead of another.
            let stays = ready.contains(&stream) && state.below(8) > 0;
            stream = if stays { stream } else { ready[state.below(ready.len())] };
            self.step(&mut state, stream);
        }
        state.now_ns = state.now_ns.max(state.tickets[ticket].expect("it was reached"));
        state.error.clone().map_or(Ok(()), Err)
    }

    fn capture(&self, stream: &usize, work: &mut dyn FnMut() -> Result<()>) -> Result<Vec<OwnedLaunch>> {
        self.state.borrow_mut().captured = Some((*stream, Vec::new()));
        let result = work();
        let (_, launches) = self.state.borrow_mut().captured.take().expect("a capture is active");
        result.map(|()| launches)
    }

    unsafe fn replay(&self, stream: &usize, graph: &Vec<OwnedLaunch>) -> Result<()> {
        if self.options.fail_replay {
            return Err(Error::new(self.name(), "a replay failed", "look at the system's log"));
        }
        let given_ns = self.state.borrow().now_ns;
        graph.iter().try_for_each(|launch| self.give(*stream, Work::Launch(launch.clone(), given_ns)))
    }
}
