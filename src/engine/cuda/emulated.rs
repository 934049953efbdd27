//! A device on the host, for tests: the real kernels, and an order of work of its own choice.
//!
//! Kernels are `kernels/hasn.cu` built as C++ with `tests/emulated` (g++ is needed). Streams are lazy: nothing happens
//! until the host waits for an event, and then what no event orders happens in an order by chance, so that a missing
//! wait shows. A virtual clock tells when each copy and launch would have happened beside the others.
//!
//! `HASN_EMULATED_ASAN=1` builds with AddressSanitizer, which finds what reaches past shared memory; the test is then
//! run with `LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0`.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use super::device::{Buffer, Device, Launch, MemoryInfo, Pinned};
use crate::error::{Error, Result};

/// In which order the threads of a block run between their meetings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum LaneOrder {
    #[default]
    Forward,
    Reverse,
    Random,
}

/// When an asynchronous copy to shared memory lands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum CopyMode {
    #[default]
    Eager,
    /// Not before it is waited for.
    Late,
}

/// How a device behaves.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Of all that happens by chance.
    pub(super) seed: u64,
    pub(super) lanes: LaneOrder,
    pub(super) copies: CopyMode,
    /// Bytes there are.
    pub(super) memory: usize,
    /// A wait of a stream for an event that does not happen, counted from 0.
    pub(super) forget_wait: Option<usize>,
    /// A launch that fails, counted from 0.
    pub(super) fail_launch: Option<usize>,
    /// Launches take so long and are not run: for what is about time only.
    pub(super) launch_ns: Option<u64>,
    /// Bytes that are copied in a microsecond, either way.
    pub(super) copy_bytes_per_us: u64,
    /// The kernels.
    pub(super) library: Arc<Library>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 0,
            lanes: LaneOrder::default(),
            copies: CopyMode::default(),
            memory: 4 << 30,
            forget_wait: None,
            fail_launch: None,
            launch_ns: None,
            copy_bytes_per_us: 25_000,
            library: Library::of_the_tree(),
        }
    }
}

/// The kernels as a library.
#[derive(Debug)]
pub(super) struct Library {
    allocated: unsafe extern "C" fn(*const u8, usize),
    freed: unsafe extern "C" fn(*const u8),
    launch: LaunchFn,
    kernel: unsafe extern "C" fn(usize, *mut *const c_char, *mut usize) -> bool,
    _library: libloading::Library,
}

type LaunchFn = unsafe extern "C" fn(*const Request, *mut Traffic, *mut c_char, usize) -> bool;

#[repr(C)]
struct Request {
    kernel: *const c_char,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    args: *const c_void,
    args_len: usize,
    lanes: u32,
    late_copies: u32,
    seed: u64,
}

/// What a launch touched of device memory: sectors of 32 bytes, each counted once, and bytes as often as they were.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Traffic {
    pub(super) sectors_read: u64,
    pub(super) sectors_written: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

/// A kernel of the library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KernelInfo {
    pub(super) name: String,
    pub(super) args_len: usize,
}

impl Library {
    /// Built once a process.
    pub(super) fn of_the_tree() -> Arc<Library> {
        static LIBRARY: OnceLock<Arc<Library>> = OnceLock::new();
        LIBRARY.get_or_init(|| Library::build(&tree().join("kernels"))).clone()
    }

    /// The kernels with a fault: in `file`, the occurrence of `from` counted from 0 is replaced.
    pub(super) fn with_fault(file: &str, from: &str, occurrence: usize, to: &str) -> Arc<Library> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in sources(&tree().join("kernels")) {
            let name = path.file_name().unwrap();
            let text = if name != file { text } else { replaced(&text, from, occurrence, to) };
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Library::build(folder.path())
    }

    fn build(kernels: &Path) -> Arc<Library> {
        let host = tree().join("tests/emulated");
        let mut flags = "-std=c++20 -O2 -mavx2 -mfma -mf16c -fPIC -shared -fvisibility=hidden -Wall -Werror \
            -Wno-unknown-pragmas -DHASN_EMULATED"
            .to_owned();
        if std::env::var_os("HASN_EMULATED_ASAN").is_some() {
            flags += " -fsanitize=address -g";
        }
        let mut hasher = DefaultHasher::new();
        (&flags, sources(kernels).into_values().collect::<Vec<_>>(), sources(&host)).hash(&mut hasher);
        let folder = tree().join("target/emulated");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{:016x}.so", hasher.finish()));
        if !path.exists() {
            // Other processes may be at it: the name is given to a whole file.
            let unfinished = tempfile::NamedTempFile::new_in(&folder).unwrap().into_temp_path();
            let mut command = Command::new("g++");
            command.args(flags.split_whitespace()).arg("-I").arg(kernels).arg("-I").arg(&host);
            command.arg(host.join("emulated.cpp")).args(["-x", "c++"]).arg(kernels.join("hasn.cu"));
            let output = command.arg("-o").arg(&*unfinished).output();
            let output = output.unwrap_or_else(|e| panic!("g++, which builds the kernels for the host: {e}"));
            assert!(output.status.success(), "g++: {}", String::from_utf8_lossy(&output.stderr));
            unfinished.persist(&path).unwrap();
        }
        // SAFETY: the library is what was just built of the sources beside this file: its initialisers only fill a
        // list, and its functions have these types.
        unsafe {
            let library = libloading::Library::new(&path).unwrap();
            Arc::new(Library {
                allocated: *library.get(b"hasn_allocated\0").unwrap(),
                freed: *library.get(b"hasn_freed\0").unwrap(),
                launch: *library.get(b"hasn_launch\0").unwrap(),
                kernel: *library.get(b"hasn_kernel\0").unwrap(),
                _library: library,
            })
        }
    }

    fn kernels(&self) -> Vec<KernelInfo> {
        let kernel = |index| {
            let (mut name, mut args_len) = (std::ptr::null(), 0);
            // SAFETY: both are written before they are read; names are C strings that live as long as the library.
            unsafe {
                (self.kernel)(index, &raw mut name, &raw mut args_len).then(|| KernelInfo {
                    name: CStr::from_ptr(name).to_str().expect("an identifier").to_owned(),
                    args_len,
                })
            }
        };
        (0..).map_while(kernel).collect()
    }
}

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// By their paths.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_source = |path: &PathBuf| {
        path.extension().is_some_and(|extension| ["cu", "cuh", "h", "cpp"].iter().any(|e| extension == *e))
    };
    paths.filter(is_source).map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

fn replaced(text: &str, from: &str, occurrence: usize, to: &str) -> String {
    let (at, _) =
        text.match_indices(from).nth(occurrence).unwrap_or_else(|| panic!("no {from:?} to replace"));
    format!("{}{to}{}", &text[..at], &text[at + from.len()..])
}

/// Something that happened, on the virtual clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) kind: SpanKind,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) traffic: Traffic,
}

/// Each kind is done by an engine of its own, one at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SpanKind {
    CopyIn,
    CopyOut,
    Kernel(&'static str),
}

/// [`Device`] on the host.
pub(super) struct Emulated {
    options: Options,
    state: Rc<RefCell<State>>,
}

struct State {
    streams: Vec<Stream>,
    /// The ticket of each event's last record.
    events: Vec<Option<usize>>,
    /// When each record was reached.
    tickets: Vec<Option<u64>>,
    /// When each engine is free: in, out, compute.
    free_ns: [u64; 3],
    /// Of the host.
    now_ns: u64,
    trace: Vec<Span>,
    captured: Option<(usize, Vec<OwnedLaunch>)>,
    waits: usize,
    launches: usize,
    used: usize,
    random: u64,
    /// It stays, as a driver's does.
    error: Option<Error>,
}

#[derive(Default)]
struct Stream {
    work: VecDeque<Work>,
    time_ns: u64,
}

enum Work {
    Copy { kind: SpanKind, to: *mut u8, from: *const u8, len: usize, given_ns: u64 },
    Launch(OwnedLaunch, u64),
    Record(usize),
    Wait(usize),
}

#[derive(Clone)]
pub(super) struct OwnedLaunch {
    kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    args: Vec<u8>,
}

/// Bytes that are all ones at first, which is NaN in f16 and in f32.
pub(super) struct HostMemory {
    start: *mut u8,
    layout: Layout,
    /// Of a buffer of the device.
    registered: Option<(Arc<Library>, Rc<RefCell<State>>)>,
}

// SAFETY: pinned memory is plain memory that one owner at a time reads and writes.
unsafe impl Send for PinnedMemory {}

/// Page-locked, if it were real.
pub(super) struct PinnedMemory(HostMemory);

impl HostMemory {
    fn new(len: usize) -> HostMemory {
        let layout = Layout::from_size_align(len.max(1), 256).unwrap();
        // SAFETY: the layout is not empty; `len` bytes are written of as many.
        let start = unsafe { alloc(layout) };
        assert!(!start.is_null());
        // SAFETY: as above.
        unsafe { start.write_bytes(0xff, layout.size()) };
        HostMemory { start, layout, registered: None }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Some((library, state)) = &self.registered {
            state.borrow_mut().used -= self.layout.size();
            // SAFETY: a plain function of the library.
            unsafe { (library.freed)(self.start) };
        }
        // SAFETY: it was allocated with this layout.
        unsafe { dealloc(self.start, self.layout) };
    }
}

impl Buffer for HostMemory {
    fn address(&self) -> u64 {
        self.start as u64
    }

    fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Pinned for PinnedMemory {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is initialised and is the owner's.
        unsafe { std::slice::from_raw_parts(self.0.start, self.0.layout.size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.start, self.0.layout.size()) }
    }
}

impl Emulated {
    pub(super) fn new(options: Options) -> Emulated {
        let state = State {
            streams: Vec::new(),
            events: Vec::new(),
            tickets: Vec::new(),
            free_ns: [0; 3],
            now_ns: 0,
            trace: Vec::new(),
            captured: None,
            waits: 0,
            launches: 0,
            used: 0,
            random: options.seed,
            error: None,
        };
        Emulated { options, state: Rc::new(RefCell::new(state)) }
    }

    pub(super) fn kernels(&self) -> Vec<KernelInfo> {
        self.options.library.kernels()
    }

    /// Shows what happens from now on to whoever keeps it, whoever owns the device.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.state.clone())
    }

    fn give(&self, stream: usize, work: Work) -> Result<()> {
        let mut state = self.state.borrow_mut();
        assert!(state.captured.is_none(), "only launches are captured");
        state.streams[stream].work.push_back(work);
        Ok(())
    }

    /// Does the first piece of work of a stream.
    fn step(&self, state: &mut State, stream: usize) {
        let Options { lanes, copies, launch_ns, copy_bytes_per_us, library, .. } = &self.options;
        let work = state.streams[stream].work.pop_front().expect("the stream has work");
        match work {
            Work::Record(ticket) => state.tickets[ticket] = Some(state.streams[stream].time_ns),
            Work::Wait(ticket) => {
                let seen_ns = state.tickets[ticket].expect("it is ready");
                let time_ns = &mut state.streams[stream].time_ns;
                *time_ns = seen_ns.max(*time_ns);
            }
            Work::Copy { kind, to, from, len, given_ns } => {
                // SAFETY: who gave the copy has promised that both live until it is seen to be done.
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
                    match launch.run(library, *lanes, *copies, seed) {
                        Ok(touched) => traffic = touched,
                        Err(problem) => {
                            state.error = Some(Error::new(self.name(), problem, "mend the kernel"))
                        }
                    }
                    // A launch, and 2 TB/s.
                    2000 + (traffic.sectors_read + traffic.sectors_written) * 32 / 2000
                });
                state.happen(stream, 2, SpanKind::Kernel(launch.kernel), given_ns, cost_ns, traffic);
            }
        }
    }
}

impl OwnedLaunch {
    fn run(
        &self,
        library: &Library,
        lanes: LaneOrder,
        copies: CopyMode,
        seed: u64,
    ) -> std::result::Result<Traffic, String> {
        let kernel = CString::new(self.kernel).expect("an identifier");
        let request = Request {
            kernel: kernel.as_ptr(),
            grid: self.grid,
            threads: self.threads,
            shared: self.shared,
            args: self.args.as_ptr().cast(),
            args_len: self.args.len(),
            lanes: lanes as u32,
            late_copies: (copies == CopyMode::Late).into(),
            seed,
        };
        let (mut traffic, mut error) = (Traffic::default(), [0u8; 400]);
        // SAFETY: all pointers are to locals of the types that the library has.
        let done = unsafe {
            (library.launch)(&raw const request, &raw mut traffic, error.as_mut_ptr().cast(), error.len())
        };
        let text = || CStr::from_bytes_until_nul(&error).expect("a C string").to_string_lossy().into_owned();
        if done { Ok(traffic) } else { Err(text()) }
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
        self.trace.push(Span { kind, start_ns, end_ns, traffic });
    }

    /// Streams whose first piece of work waits for nothing.
    fn ready(&self) -> Vec<usize> {
        let is_ready = |stream: &usize| match self.streams[*stream].work.front() {
            Some(Work::Wait(ticket)) => self.tickets[*ticket].is_some(),
            front => front.is_some(),
        };
        (0..self.streams.len()).filter(is_ready).collect()
    }

    /// Below `end`, by chance (Knuth's linear congruential generator).
    fn below(&mut self, end: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % end
    }
}

/// The trace of a device.
pub(super) struct Watch(Rc<RefCell<State>>);

impl Watch {
    pub(super) fn trace(&self) -> Vec<Span> {
        self.0.borrow().trace.clone()
    }

    /// Bytes of the device's memory that are taken.
    pub(super) fn used(&self) -> usize {
        self.0.borrow().used
    }
}

impl Device for Emulated {
    type Buffer = HostMemory;
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
        227 << 10
    }

    fn alloc(&self, len: usize) -> Result<HostMemory> {
        assert!(self.state.borrow().captured.is_none(), "nothing is allocated in a capture");
        if len > self.memory()?.free {
            let problem = format!("{len} bytes of its memory are not to be had");
            return Err(Error::new(self.name(), problem, "use --engine cpu"));
        }
        let mut memory = HostMemory::new(len);
        let library = self.options.library.clone();
        self.state.borrow_mut().used += memory.layout.size();
        // SAFETY: a plain function of the library.
        unsafe { (library.allocated)(memory.start, memory.layout.size()) };
        memory.registered = Some((library, self.state.clone()));
        Ok(memory)
    }

    fn alloc_pinned(&self, len: usize) -> Result<PinnedMemory> {
        let mut pinned = PinnedMemory(HostMemory::new(len));
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

    unsafe fn copy_in(&self, stream: &usize, to: &HostMemory, from: &PinnedMemory) -> Result<()> {
        let len = from.0.layout.size();
        assert!(len <= to.layout.size());
        let given_ns = self.state.borrow().now_ns;
        let kind = SpanKind::CopyIn;
        self.give(*stream, Work::Copy { kind, to: to.start, from: from.0.start, len, given_ns })
    }

    unsafe fn copy_out(&self, stream: &usize, to: &mut PinnedMemory, from: &HostMemory) -> Result<()> {
        // What is there until the copy has happened is not to be taken for it.
        to.bytes_mut().fill(0xff);
        let len = to.0.layout.size();
        assert!(len <= from.layout.size());
        let given_ns = self.state.borrow().now_ns;
        let kind = SpanKind::CopyOut;
        self.give(*stream, Work::Copy { kind, to: to.0.start, from: from.start, len, given_ns })
    }

    unsafe fn launch(&self, stream: &usize, launch: Launch<'_>) -> Result<()> {
        let Launch { kernel, grid, threads, shared, args } = launch;
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
        let ticket = {
            let mut state = self.state.borrow_mut();
            state.tickets.push(None);
            let ticket = state.tickets.len() - 1;
            state.events[*event] = Some(ticket);
            ticket
        };
        self.give(*stream, Work::Record(ticket))
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
        assert!(state.captured.is_none(), "nobody waits in a capture");
        let Some(ticket) = state.events[*event] else { return Ok(()) };
        let (mut more, mut stream) = (state.below(4), 0);
        loop {
            if state.tickets[ticket].is_some() {
                // A device goes on by itself, too.
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
            // Mostly the one before, so that one stream gets far ahead of another.
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
        let (_, launches) = self.state.borrow_mut().captured.take().expect("it was begun");
        result.map(|()| launches)
    }

    unsafe fn replay(&self, stream: &usize, graph: &Vec<OwnedLaunch>) -> Result<()> {
        let given_ns = self.state.borrow().now_ns;
        graph.iter().try_for_each(|launch| self.give(*stream, Work::Launch(launch.clone(), given_ns)))
    }
}
