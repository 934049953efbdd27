//! NVIDIA's driver as a [`Device`], through cudarc, which loads it at run time.
//!
//! In: calls of the engine. Out: the first GPU's memory, streams and graphs, and an error of one line for whatever is
//! missing on the machine. It knows only the names of the kernels, and no frame.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, CudaFunction, CudaGraph, CudaStream, sys};
use cudarc::nvrtc::Ptx;

use super::archive;
use super::device::{Buffer, Device, Launch, MemoryInfo, Pinned};
use crate::error::{Error, ErrorKind, Result};

/// CUDA 12.0, which drivers from 525 on support: older ones cannot load cubins of CUDA 12.
const VERSION_MIN: i32 = 12_000;

/// The functions of the driver that are called here or in cudarc, which panics where one is missing.
const CALLED: [&str; 37] = [
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncSetAttribute",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamWaitEvent",
];

/// The remedy where the driver or the GPU is at fault.
const REMEDY: &str = "look for NVRM in dmesg, update the driver, or use --engine cpu";

/// Returns the name of the GPU that the engine would use, or an error that says why there is none.
pub(crate) fn probe() -> Result<String> {
    find_gpu().map(|gpu| gpu.name)
}

struct Gpu {
    name: String,
    /// The kernels compiled for it.
    code: Vec<u8>,
}

fn find_gpu() -> Result<Gpu> {
    start_driver()?;
    let none = || {
        Error::new("CUDA", "the driver finds no GPU", "look at nvidia-smi, or use --engine cpu")
            .with_kind(ErrorKind::Device)
    };
    let of_driver = |error: DriverError| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => none(),
        _ => failure("CUDA", "starting the driver", error),
    };
    result::init().map_err(of_driver)?;
    if result::device::get_count().map_err(of_driver)? == 0 {
        return Err(none());
    }
    let device = result::device::get(0).map_err(of_driver)?;
    let name = result::device::get_name(device).map_err(of_driver)?;
    // SAFETY: the device is one that the driver named.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(of_driver);
    let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let name = format!("{name} (sm_{major}{minor})");
    match archive::code((major.unsigned_abs(), minor.unsigned_abs())) {
        Some(code) => Ok(Gpu { name, code }),
        None => {
            let problem = format!("there are no kernels for it, only for {} and newer", archive::targets());
            Err(Error::new(name, problem, "use --engine cpu").with_kind(ErrorKind::Device))
        }
    }
}

/// Checks that the driver is installed and recent enough.
fn start_driver() -> Result<()> {
    let unfit = |problem: String| {
        Err(Error::new("CUDA", problem, "install NVIDIA's driver 525 or newer, or use --engine cpu")
            .with_kind(ErrorKind::Device))
    };
    // SAFETY: a library of that name is NVIDIA's driver, whose initialisers have no requirements.
    if !unsafe { sys::is_culib_present() } {
        return unfit("there is no NVIDIA driver".to_owned());
    }
    // SAFETY: as above; the function is not called.
    let has = |name: &&str| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_ok();
    let mut version = VERSION_MIN;
    let queried = match has(&"cuDriverGetVersion") {
        // SAFETY: it is there, and writes one number.
        true => unsafe { sys::cuDriverGetVersion(&mut version) }.result(),
        false => Ok(()),
    };
    if version < VERSION_MIN {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return unfit(format!("the driver is too old: it supports CUDA {major}.{minor}"));
    }
    match CALLED.iter().find(|name| !has(name)) {
        Some(missing) => unfit(format!("the driver lacks {missing}")),
        None => queried.map_err(|error| failure("CUDA", "starting the driver", error)),
    }
}

fn failure(subject: &str, what: &str, error: DriverError) -> Error {
    let text = error.error_string().map_or("an unnamed error".into(), |text| text.to_string_lossy());
    Error::new(subject, format!("{what} failed: {text}"), REMEDY).with_kind(ErrorKind::Device)
}

/// The first GPU that `CUDA_VISIBLE_DEVICES` allows.
#[derive(Clone)]
pub(crate) struct Driver {
    kernels: Arc<HashMap<String, Kernel>>,
    shared_max: usize,
    name: String,
    started: Instant,
    start_s: f64,
    context: Arc<CudaContext>,
}

struct Kernel {
    function: CudaFunction,
    /// Size of its argument in bytes.
    args: usize,
}

impl Driver {
    pub(crate) fn open() -> Result<Driver> {
        let started = Instant::now();
        let Gpu { name, code } = find_gpu()?;
        let failed = |what: &'static str| {
            let name = &name;
            move |error| failure(name, what, error)
        };
        let context = CudaContext::new(0).map_err(failed("opening the GPU"))?;
        let start_s = started.elapsed().as_secs_f64();
        // SAFETY: the engine orders its streams with its own events.
        unsafe { context.disable_event_tracking() };
        let optin = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_max = context.attribute(optin).map_err(failed("querying its shared memory"))?;
        let module = context.load_module(Ptx::from_binary(code)).map_err(failed("loading the kernels"))?;
        // Loads all kernels now: the driver loads a kernel on first use, which must not be within a capture.
        let load = |kernel: archive::Kernel| {
            let function = module.load_function(&kernel.name)?;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, shared_max)?;
            Ok((kernel.name, Kernel { function, args: kernel.args }))
        };
        let kernels = archive::kernels().into_iter().map(load).collect::<std::result::Result<_, _>>();
        let kernels = Arc::new(kernels.map_err(failed("loading the kernels"))?);
        Ok(Driver { kernels, shared_max: shared_max as usize, name, started, start_s, context })
    }

    /// Seconds of [`Driver::open`] before the kernels were loaded.
    pub(super) fn start_s(&self) -> f64 {
        self.start_s
    }

    fn make_event(&self, flags: u32) -> Result<DriverEvent> {
        let mut event = std::ptr::null_mut();
        // A waiting thread sleeps: FFmpeg needs the core.
        let flags = flags | sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32;
        // SAFETY: a new event is written to `event`.
        self.call("creating an event", || unsafe { sys::cuEventCreate(&mut event, flags) }.result())?;
        Ok(DriverEvent { event, context: self.context.clone() })
    }

    /// Runs a call of the driver in the context; `what` names it in errors.
    fn call<T>(&self, what: &str, call: impl FnOnce() -> std::result::Result<T, DriverError>) -> Result<T> {
        self.context.bind_to_thread().and_then(|()| call()).map_err(|error| failure(&self.name, what, error))
    }
}

impl Device for Driver {
    type Buffer = DriverBuffer;
    type Pinned = DriverPinned;
    type Stream = Arc<CudaStream>;
    type Event = DriverEvent;
    type Graph = CudaGraph;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let (free, total) = self.call("querying its memory", result::mem_get_info)?;
        Ok(MemoryInfo { free, total })
    }

    fn shared_max(&self) -> usize {
        self.shared_max
    }

    fn alloc(&self, len: usize) -> Result<DriverBuffer> {
        let alloc = || {
            // SAFETY: plain bytes, none of which is read before it is written.
            let allocated = unsafe { result::malloc_sync(len) };
            match allocated {
                Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
                other => other.map(Some),
            }
        };
        if let Some(address) = self.call("allocating memory", alloc)? {
            return Ok(DriverBuffer { address, len, context: self.context.clone() });
        }
        let (wanted, free) = (len.div_ceil(1_000_000), self.memory()?.free / 1_000_000);
        let problem = format!("allocating {wanted} MB of its memory failed where {free} MB are free");
        Err(Error::new(&self.name, problem, "close other programs that use it, or use --engine cpu")
            .with_kind(ErrorKind::Device))
    }

    fn alloc_pinned(&self, len: usize) -> Result<DriverPinned> {
        let bytes = self.call("allocating page-locked memory", || {
            // SAFETY: it is written before it is read; without flags it is not write-combined, which would make reading it
            // back slow.
            unsafe {
                let bytes = result::malloc_host(len.max(1), 0)?.cast::<u8>();
                bytes.write_bytes(0, len);
                Ok(bytes)
            }
        })?;
        Ok(DriverPinned { bytes, len, context: self.context.clone() })
    }

    fn stream(&self) -> Result<Arc<CudaStream>> {
        self.call("creating a stream", || self.context.new_stream())
    }

    fn event(&self) -> Result<DriverEvent> {
        self.make_event(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32)
    }

    fn timer(&self) -> Result<DriverEvent> {
        self.make_event(0)
    }

    fn elapsed_s(&self, from: &DriverEvent, to: &DriverEvent) -> Result<f64> {
        // SAFETY: both are alive.
        let ms = self.call("reading a timer", || unsafe { result::event::elapsed(from.event, to.event) })?;
        Ok(f64::from(ms) * 1e-3)
    }

    fn now_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    unsafe fn copy_in(&self, stream: &Arc<CudaStream>, to: &DriverBuffer, from: &DriverPinned) -> Result<()> {
        assert!(from.len <= to.len, "{} bytes into {}", from.len, to.len);
        // SAFETY: both are long enough, and the caller keeps them until the copy is done.
        self.call("copying to it", || unsafe {
            result::memcpy_htod_async(to.address, from.bytes(), stream.cu_stream())
        })
    }

    unsafe fn copy_out(
        &self,
        stream: &Arc<CudaStream>,
        to: &mut DriverPinned,
        from: &DriverBuffer,
    ) -> Result<()> {
        assert!(to.len <= from.len, "{} bytes of {}", to.len, from.len);
        // SAFETY: both are long enough, and the caller keeps them until the copy is done.
        self.call("copying from it", || unsafe {
            result::memcpy_dtoh_async(to.bytes_mut(), from.address, stream.cu_stream())
        })
    }

    unsafe fn launch(&self, stream: &Arc<CudaStream>, launch: Launch<'_>) -> Result<()> {
        let Launch { kernel, grid, threads, shared, args } = launch;
        let Kernel { function, args: args_len } = &self.kernels[kernel];
        assert_eq!(args.len(), *args_len, "bytes of the argument of {kernel}");
        if shared as usize > self.shared_max() {
            let problem = format!("{kernel} needs {shared} bytes of shared memory of {}", self.shared_max);
            return Err(Error::new(&self.name, problem, "use --engine cpu, or a smaller model")
                .with_kind(ErrorKind::Device));
        }
        self.call(&format!("launching {kernel}"), || {
            let mut params = [args.as_ptr().cast_mut().cast::<c_void>()];
            // SAFETY: the function is of a loaded module and copies its argument, as long as `args`, before this returns;
            // the caller guarantees that the argument is right.
            unsafe {
                let grid = grid.into();
                result::launch_kernel(
                    function.cu_function(),
                    grid,
                    (threads, 1, 1),
                    shared,
                    stream.cu_stream(),
                    &mut params,
                )
            }
        })
    }

    fn record(&self, stream: &Arc<CudaStream>, event: &DriverEvent) -> Result<()> {
        // SAFETY: both are alive.
        self.call("recording an event", || unsafe { result::event::record(event.event, stream.cu_stream()) })
    }

    fn wait(&self, stream: &Arc<CudaStream>, event: &DriverEvent) -> Result<()> {
        let default = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are alive.
        self.call("waiting for an event", || unsafe {
            result::stream::wait_event(stream.cu_stream(), event.event, default)
        })
    }

    fn synchronize(&self, event: &DriverEvent) -> Result<()> {
        // SAFETY: it is alive.
        self.call("running a frame", || unsafe { result::event::synchronize(event.event) })
    }

    fn capture(&self, stream: &Arc<CudaStream>, work: &mut dyn FnMut() -> Result<()>) -> Result<CudaGraph> {
        let what = "capturing a frame's launches";
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.call(what, || stream.begin_capture(mode))?;
        let worked = work();
        // The capture ends in any case: a stream in capture cannot be used otherwise.
        let graph = self.call(what, || stream.end_capture(sys::CUgraphInstantiate_flags(0)));
        worked?;
        Ok(graph?.expect("a capture gives a graph"))
    }

    unsafe fn replay(&self, stream: &Arc<CudaStream>, graph: &CudaGraph) -> Result<()> {
        // SAFETY: both are alive; the caller guarantees the launches.
        self.call("launching a frame", || unsafe {
            result::graph::launch(graph.cu_graph_exec(), stream.cu_stream())
        })
    }
}

pub(crate) struct DriverBuffer {
    address: u64,
    len: usize,
    context: Arc<CudaContext>,
}

impl Buffer for DriverBuffer {
    fn address(&self) -> u64 {
        self.address
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for DriverBuffer {
    fn drop(&mut self) {
        // SAFETY: it was allocated in this context, and its last use is over.
        let free = || unsafe { result::free_sync(self.address) };
        self.context.record_err(self.context.bind_to_thread().and_then(|()| free()));
    }
}

pub(crate) struct DriverPinned {
    bytes: *mut u8,
    len: usize,
    context: Arc<CudaContext>,
}

// SAFETY: memory of the host with one owner at a time.
unsafe impl Send for DriverPinned {}

impl Pinned for DriverPinned {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated and were written; copies to them are over, as copy_out requires.
        unsafe { std::slice::from_raw_parts(self.bytes, self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes are allocated and were written; copies of them are over, as copy_in requires.
        unsafe { std::slice::from_raw_parts_mut(self.bytes, self.len) }
    }
}

impl Drop for DriverPinned {
    fn drop(&mut self) {
        // SAFETY: it was allocated in this context, and its last use is over.
        let free = || unsafe { result::free_host(self.bytes.cast()) };
        self.context.record_err(self.context.bind_to_thread().and_then(|()| free()));
    }
}

pub(crate) struct DriverEvent {
    event: sys::CUevent,
    context: Arc<CudaContext>,
}

impl Drop for DriverEvent {
    fn drop(&mut self) {
        // SAFETY: it was made in this context; the driver keeps what still waits for it.
        let destroy = || unsafe { result::event::destroy(self.event) };
        self.context.record_err(self.context.bind_to_thread().and_then(|()| destroy()));
    }
}
