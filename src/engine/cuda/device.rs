//! The interface of a device: memory, copies, launches, events, streams, graphs, clocks.
//!
//! There are two implementations: NVIDIA's driver and, in tests, the host, which runs the same kernels and chooses the
//! order of work that no event orders. All calls are asynchronous except [`Device::synchronize`] and allocations.

use crate::error::Result;

/// Maximum number of blocks along y and z (CUDA C++ Programming Guide, Technical Specifications per Compute Capability).
pub(crate) const GRID_YZ_MAX: u32 = 65_535;

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    /// Name in the source.
    pub(crate) kernel: &'static str,
    /// Blocks along x, y, z.
    pub(crate) grid: [u32; 3],
    /// Threads per block.
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    /// The bytes of its argument, a `#[repr(C)]` struct.
    pub(crate) args: &'a [u8],
}

/// Memory of the device, freed when dropped.
pub(crate) trait Buffer {
    /// Address in kernels.
    fn address(&self) -> u64;
    /// Length in bytes.
    fn len(&self) -> usize;
}

/// Page-locked memory of the host, initially zeroed.
pub(crate) trait Pinned: Send {
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// Free and total bytes of the device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryInfo {
    pub(crate) free: usize,
    pub(crate) total: usize,
}

/// A handle of a device. Buffers, streams, events and graphs must be dropped before the last handle.
pub(crate) trait Device: Clone {
    type Buffer: Buffer;
    type Pinned: Pinned;
    type Stream;
    type Event;
    type Graph;

    /// Name for messages: "NVIDIA H100 (sm_90)".
    fn name(&self) -> String;

    fn memory(&self) -> Result<MemoryInfo>;

    /// Maximum dynamic shared memory of a block, in bytes.
    fn shared_max(&self) -> usize;

    fn alloc(&self, len: usize) -> Result<Self::Buffer>;

    fn alloc_pinned(&self, len: usize) -> Result<Self::Pinned>;

    fn stream(&self) -> Result<Self::Stream>;

    fn event(&self) -> Result<Self::Event>;

    /// Creates an event with a timestamp.
    fn timer(&self) -> Result<Self::Event>;

    /// Seconds on the device from one timer to another, both recorded on one stream and completed.
    fn elapsed_s(&self, from: &Self::Event, to: &Self::Event) -> Result<f64>;

    /// Seconds on the clock of the host.
    fn now_s(&self) -> f64;

    /// Copies all of `from` to the start of `to`.
    ///
    /// # Safety
    /// Until an event recorded after it is completed, `from` is not written and neither is dropped.
    unsafe fn copy_in(&self, stream: &Self::Stream, to: &Self::Buffer, from: &Self::Pinned) -> Result<()>;

    /// Copies the start of `from` to all of `to`.
    ///
    /// # Safety
    /// Until an event recorded after it is completed, `to` is neither read nor written, and neither is dropped.
    unsafe fn copy_out(
        &self,
        stream: &Self::Stream,
        to: &mut Self::Pinned,
        from: &Self::Buffer,
    ) -> Result<()>;

    /// # Safety
    /// `args` is the argument of the kernel of that name, its addresses are of buffers large enough for the kernel's
    /// accesses, and these are not dropped until an event recorded after it is completed.
    unsafe fn launch(&self, stream: &Self::Stream, launch: Launch<'_>) -> Result<()>;

    /// The event is completed once all work that the stream was given before is done.
    fn record(&self, stream: &Self::Stream, event: &Self::Event) -> Result<()>;

    /// Work given to the stream from now on starts after the last record of the event.
    fn wait(&self, stream: &Self::Stream, event: &Self::Event) -> Result<()>;

    /// Returns once the last record of the event is completed.
    fn synchronize(&self, event: &Self::Event) -> Result<()>;

    /// Records the launches of `work` on `stream` into a graph, without running them.
    fn capture(&self, stream: &Self::Stream, work: &mut dyn FnMut() -> Result<()>) -> Result<Self::Graph>;

    /// # Safety
    /// As for every launch of the graph.
    unsafe fn replay(&self, stream: &Self::Stream, graph: &Self::Graph) -> Result<()>;
}
