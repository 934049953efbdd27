//! A device emulated on the host, for tests: the real kernels, in an order of work that it chooses.
//!
//! The kernels are `kernels/hasn.cu`, or a copy with one fault, compiled as C++ with `tests/emulated` (g++ is needed) and
//! loaded. `streams` runs them lazily, on a virtual clock.
//!
//! `HASN_EMULATED_ASAN=1` builds the kernels with AddressSanitizer, which reports accesses outside shared memory, with
//! the line of the source; the test then needs `LD_PRELOAD=$(gcc -print-file-name=libasan.so)` and
//! `ASAN_OPTIONS=detect_leaks=0`, as `make test-cuda` has it.

mod streams;
mod tests;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

pub(super) use streams::{Emulated, Span, SpanKind, Watch};

/// The order in which the threads of a block run between barriers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum LaneOrder {
    #[default]
    Forward,
    Reverse,
    Random,
}

/// The time when an asynchronous copy to shared memory is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum CopyMode {
    #[default]
    Eager,
    /// Only when it is waited for.
    Late,
}

/// The behaviour of a device.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Seed of all random choices.
    pub(super) seed: u64,
    pub(super) lanes: LaneOrder,
    pub(super) copies: CopyMode,
    /// Bytes of device memory.
    pub(super) memory: usize,
    /// Maximum shared memory of a block in bytes. The default is that of Turing, the smallest supported.
    pub(super) shared_max: usize,
    /// Index of the allocation that every block reads completely, which stays in the L1 cache.
    pub(super) common: Option<usize>,
    /// Index of a stream's wait for an event that is ignored.
    pub(super) forget_wait: Option<usize>,
    /// Index of a launch that fails.
    pub(super) fail_launch: Option<usize>,
    /// Whether every replay of a graph fails.
    pub(super) fail_replay: bool,
    /// Duration of launches, which then are not run: for tests of timing only.
    pub(super) launch_ns: Option<u64>,
    /// Bytes copied per microsecond, in either direction.
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
            shared_max: 64 << 10,
            common: None,
            forget_wait: None,
            fail_launch: None,
            fail_replay: false,
            launch_ns: None,
            copy_bytes_per_us: 25_000,
            library: Library::of_the_tree(),
        }
    }
}

/// The kernels as a library.
#[derive(Debug)]
pub(super) struct Library {
    open: OpenFn,
    close: CloseFn,
    allocated: AllocatedFn,
    freed: FreedFn,
    launch: LaunchFn,
    kernel: KernelFn,
    _library: libloading::Library,
}

// The functions of `emulated.cpp`. SAFETY: a device is open; other pointers are valid for their types during the call.
type OpenFn = unsafe extern "C" fn() -> *mut c_void;
type CloseFn = unsafe extern "C" fn(*mut c_void);
// SAFETY: as above; the address of memory is stored, and accessed only in launches.
type AllocatedFn = unsafe extern "C" fn(*mut c_void, *const u8, usize, bool);
type FreedFn = unsafe extern "C" fn(*mut c_void, *const u8);
// SAFETY: as above; written are numbers, a C string of the library, and a string of at most the given length.
type LaunchFn = unsafe extern "C" fn(*mut c_void, *const Request, *mut Traffic, *mut c_char, usize) -> bool;
type KernelFn = unsafe extern "C" fn(usize, *mut *const c_char, *mut usize, *mut u32) -> bool;

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

/// The counts of a launch. Sectors are 32 bytes of device memory.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Traffic {
    /// Distinct sectors read.
    pub(super) read: u64,
    /// Distinct sectors written.
    pub(super) written: u64,
    /// Sectors read, once per block, except in [`Options::common`] memory.
    pub(super) read_by_blocks: u64,
    /// Sectors written, once per block.
    pub(super) written_by_blocks: u64,
    /// Multiply-adds of tensor cores.
    pub(super) multiply_adds: u64,
    /// 2^x, 1 / x, x^-1/2.
    pub(super) special_functions: u64,
    /// Conversions between f16 and f32.
    pub(super) conversions: u64,
    /// Matrices of f16 loaded from shared memory.
    pub(super) matrices: u64,
    /// Repeated loads of a matrix whose rows share a bank.
    pub(super) conflicts: u64,
    /// Shared memory of a block in bytes.
    pub(super) shared: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.read += other.read;
        self.written += other.written;
        self.read_by_blocks += other.read_by_blocks;
        self.written_by_blocks += other.written_by_blocks;
        self.multiply_adds += other.multiply_adds;
        self.special_functions += other.special_functions;
        self.conversions += other.conversions;
        self.matrices += other.matrices;
        self.conflicts += other.conflicts;
        self.shared = self.shared.max(other.shared);
    }
}

/// A kernel of the library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KernelInfo {
    pub(super) name: String,
    pub(super) args_len: usize,
    pub(super) threads: u32,
}

/// A launch that can run later and repeatedly.
#[derive(Clone, Debug)]
pub(super) struct OwnedLaunch {
    kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    args: Vec<u8>,
}

impl Library {
    /// Returns the library of the source tree, built once per process.
    pub(super) fn of_the_tree() -> Arc<Library> {
        static LIBRARY: OnceLock<Arc<Library>> = OnceLock::new();
        LIBRARY.get_or_init(|| Library::build(&tree("kernels"), &tree("kernels/hasn.cu"), "-O2")).clone()
    }

    /// Builds the kernels with a fault: in `file`, the given occurrence of `from` (from 0) is replaced.
    pub(super) fn with_fault(file: &str, from: &str, occurrence: usize, to: &str) -> Arc<Library> {
        let mut texts = sources(&tree("kernels"));
        let text = texts.get_mut(&tree("kernels").join(file)).unwrap_or_else(|| panic!("there is no {file}"));
        *text = replaced(text, from, occurrence, to);
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in texts {
            std::fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
        // Its build takes longer than its use.
        Library::build(folder.path(), &folder.path().join("hasn.cu"), "-O0")
    }

    /// Compiles `unit`, which includes files of `kernels`.
    fn build(kernels: &Path, unit: &Path, optimised: &str) -> Arc<Library> {
        let host = tree("tests/emulated");
        let mut flags = format!(
            "-std=c++20 {optimised} -mavx2 -mfma -mf16c -fPIC -shared -fvisibility=hidden -Wall -Werror \
             -Wno-unknown-pragmas -DHASN_EMULATED"
        );
        if std::env::var_os("HASN_EMULATED_ASAN").is_some() {
            flags += " -fsanitize=address -g";
        }
        let mut hasher = DefaultHasher::new();
        let texts: Vec<String> = sources(kernels).into_values().chain(sources(&host).into_values()).collect();
        (&flags, unit.file_name(), texts).hash(&mut hasher);
        let folder = tree("target/emulated");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{:016x}.so", hasher.finish()));
        if !path.exists() {
            // Other processes may build it at the same time: only a complete file gets the name.
            let unfinished = tempfile::NamedTempFile::new_in(&folder).unwrap().into_temp_path();
            let mut command = Command::new("g++");
            command.args(flags.split_whitespace()).arg("-I").arg(kernels).arg("-I").arg(&host);
            command.arg(host.join("emulated.cpp")).args(["-x", "c++"]).arg(unit);
            let output = command.arg("-o").arg(&*unfinished).output();
            let output = output.unwrap_or_else(|e| panic!("g++, which builds the kernels for the host: {e}"));
            assert!(output.status.success(), "g++: {}", String::from_utf8_lossy(&output.stderr));
            unfinished.persist(&path).unwrap();
        }
        // SAFETY: the library was just built from the sources of this tree: its initialisers only fill a list, and its
        // functions have these types.
        unsafe {
            let library =
                libloading::Library::new(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            Arc::new(Library {
                open: *library.get(b"hasn_open\0").unwrap(),
                close: *library.get(b"hasn_close\0").unwrap(),
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
            let (mut name, mut args_len, mut threads) = (std::ptr::null(), 0, 0);
            // SAFETY: all are written before they are read; names are C strings that live as long as the library.
            unsafe {
                (self.kernel)(index, &raw mut name, &raw mut args_len, &raw mut threads).then(|| {
                    let name = CStr::from_ptr(name).to_str().expect("an identifier").to_owned();
                    KernelInfo { name, args_len, threads }
                })
            }
        };
        (0..).map_while(kernel).collect()
    }
}

/// The library's registry of a device's memory.
struct Registry {
    library: Arc<Library>,
    device: *mut c_void,
}

impl Registry {
    fn new(library: Arc<Library>) -> Registry {
        // SAFETY: a plain function of the library.
        let device = unsafe { (library.open)() };
        Registry { library, device }
    }

    fn allocated(&mut self, start: *const u8, len: usize, common: bool) {
        // SAFETY: the device is open until the registry is dropped; the library keeps the numbers.
        unsafe { (self.library.allocated)(self.device, start, len, common) };
    }

    fn freed(&mut self, start: *const u8) {
        // SAFETY: as above.
        unsafe { (self.library.freed)(self.device, start) };
    }

    /// Runs a launch and returns its counts, or what it did wrong.
    fn run(
        &mut self,
        launch: &OwnedLaunch,
        lanes: LaneOrder,
        copies: CopyMode,
        seed: u64,
    ) -> std::result::Result<Traffic, String> {
        let kernel = CString::new(launch.kernel).expect("an identifier");
        let request = Request {
            kernel: kernel.as_ptr(),
            grid: launch.grid,
            threads: launch.threads,
            shared: launch.shared,
            args: launch.args.as_ptr().cast(),
            args_len: launch.args.len(),
            lanes: lanes as u32,
            late_copies: (copies == CopyMode::Late).into(),
            seed,
        };
        let (mut traffic, mut error) = (Traffic::default(), [0u8; 400]);
        let message = error.as_mut_ptr().cast();
        // SAFETY: all pointers are to locals of the library's types, and the kernel accesses only memory of the registry.
        let done = unsafe {
            (self.library.launch)(self.device, &raw const request, &raw mut traffic, message, error.len())
        };
        let text = || CStr::from_bytes_until_nul(&error).expect("a C string").to_string_lossy().into_owned();
        if done { Ok(traffic) } else { Err(text()) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // SAFETY: it is open, and closed only here.
        unsafe { (self.library.close)(self.device) };
    }
}

/// A path of the source tree.
fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Reads the source files of a folder, by path.
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
