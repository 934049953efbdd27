//! A device on the host, for tests: the real kernels, and an order of work of its own choice.
//!
//! Kernels are `kernels/hasn.cu`, or those with one place replaced, built as C++ with `tests/emulated` (g++ is needed)
//! and loaded. `streams` runs them, lazily, beside a virtual clock.
//!
//! `HASN_EMULATED_ASAN=1` builds the kernels with AddressSanitizer, which finds what reaches past shared memory, with
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
    /// Bytes of shared memory that a block can have. At first as on Turing, which has the least of what there are
    /// kernels for.
    pub(super) shared_max: usize,
    /// The allocation, counted from 0, of which every block reads the same, which stays in its first cache.
    pub(super) common: Option<usize>,
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
            shared_max: 64 << 10,
            common: None,
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
    open: OpenFn,
    close: CloseFn,
    allocated: AllocatedFn,
    freed: FreedFn,
    launch: LaunchFn,
    kernel: KernelFn,
    _library: libloading::Library,
}

// The functions of `emulated.cpp`. SAFETY: a device is one that was opened and not closed; other pointers are to what
// their types say, as long as the call lasts.
type OpenFn = unsafe extern "C" fn() -> *mut c_void;
type CloseFn = unsafe extern "C" fn(*mut c_void);
// SAFETY: as above; of memory that is told of, the address is kept, and touched in launches only.
type AllocatedFn = unsafe extern "C" fn(*mut c_void, *const u8, usize, bool);
type FreedFn = unsafe extern "C" fn(*mut c_void, *const u8);
// SAFETY: as above; what is written are numbers, a C string of the library, and one as long as is said.
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

/// What a launch did. Sectors are 32 bytes of device memory.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Traffic {
    /// Each sector once.
    pub(super) read: u64,
    pub(super) written: u64,
    /// Each once a block, of memory that is not [`Options::common`].
    pub(super) read_by_blocks: u64,
    pub(super) written_by_blocks: u64,
    /// Of tensor cores.
    pub(super) multiply_adds: u64,
    /// 2^x, 1 / x, x^-1/2.
    pub(super) special_functions: u64,
    /// Between f16 and f32.
    pub(super) conversions: u64,
    /// Of f16 from shared memory, and how often one had to be read again because rows of it share a bank.
    pub(super) matrices: u64,
    pub(super) conflicts: u64,
    /// Bytes of shared memory of a block.
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

/// A launch that may be done later, and more than once.
#[derive(Clone, Debug)]
pub(super) struct OwnedLaunch {
    kernel: &'static str,
    grid: [u32; 3],
    threads: u32,
    shared: u32,
    args: Vec<u8>,
}

impl Library {
    /// Built once a process.
    pub(super) fn of_the_tree() -> Arc<Library> {
        static LIBRARY: OnceLock<Arc<Library>> = OnceLock::new();
        LIBRARY.get_or_init(|| Library::build(&tree("kernels"), &tree("kernels/hasn.cu"), "-O2")).clone()
    }

    /// The kernels with a fault: in `file`, the occurrence of `from` counted from 0 is replaced.
    pub(super) fn with_fault(file: &str, from: &str, occurrence: usize, to: &str) -> Arc<Library> {
        let mut texts = sources(&tree("kernels"));
        let text = texts.get_mut(&tree("kernels").join(file)).unwrap_or_else(|| panic!("there is no {file}"));
        *text = replaced(text, from, occurrence, to);
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in texts {
            std::fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
        // Building it takes longer than all that is done with it.
        Library::build(folder.path(), &folder.path().join("hasn.cu"), "-O0")
    }

    /// Of `unit`, which includes what it needs from `kernels`.
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
            // Other processes may be at it: the name is given to a whole file.
            let unfinished = tempfile::NamedTempFile::new_in(&folder).unwrap().into_temp_path();
            let mut command = Command::new("g++");
            command.args(flags.split_whitespace()).arg("-I").arg(kernels).arg("-I").arg(&host);
            command.arg(host.join("emulated.cpp")).args(["-x", "c++"]).arg(unit);
            let output = command.arg("-o").arg(&*unfinished).output();
            let output = output.unwrap_or_else(|e| panic!("g++, which builds the kernels for the host: {e}"));
            assert!(output.status.success(), "g++: {}", String::from_utf8_lossy(&output.stderr));
            unfinished.persist(&path).unwrap();
        }
        // SAFETY: the library is what was just built of the sources beside this file: its initialisers only fill a
        // list, and its functions have these types.
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

/// What the library keeps of a device: where its memory is.
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

    /// Runs a launch: what it touched, or what it did wrong.
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
        let told = error.as_mut_ptr().cast();
        // SAFETY: all pointers are to locals of the types that the library has, and the kernel touches no memory of the
        // device but what is in the registry.
        let done = unsafe {
            (self.library.launch)(self.device, &raw const request, &raw mut traffic, told, error.len())
        };
        let text = || CStr::from_bytes_until_nul(&error).expect("a C string").to_string_lossy().into_owned();
        if done { Ok(traffic) } else { Err(text()) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // SAFETY: it was opened once and is closed once.
        unsafe { (self.library.close)(self.device) };
    }
}

/// A path of the source tree.
fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
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
