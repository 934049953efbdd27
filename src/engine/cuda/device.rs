//! What the engine asks of a device: memory, copies, launches, events, streams, graphs, clocks.
//!
//! There are two: the driver's, and, in tests, the host, which runs the same kernels and picks the order of what no
//! event orders. All work is asynchronous but [`Device::synchronize`] and what allocates.

use crate::error::Result;

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    /// As in its source.
    pub(crate) kernel: &'static str,
    /// Blocks along x, y, z.
    pub(crate) grid: [u32; 3],
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    /// The bytes of its one argument, a `#[repr(C)]` struct.
    pub(crate) args: &'a [u8],
}

/// Memory of the device, given back when dropped.
pub(crate) trait Buffer {
    /// As kernels see it.
    fn address(&self) -> u64;
    /// In bytes.
    fn len(&self) -> usize;
}

/// Page-locked memory of the host, zeroed at first.
pub(crate) trait Pinned: Send {
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// Bytes of the device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryInfo {
    pub(crate) free: usize,
    pub(crate) total: usize,
}

/// A device, or one more name of it. What it hands out lives no longer than the last of its names: owners drop theirs first.
pub(crate) trait Device: Clone {
    type Buffer: Buffer;
    type Pinned: Pinned;
    type Stream;
    type Event;
    type Graph;

    /// For people: "NVIDIA H100 (sm_90)".
    fn name(&self) -> String;

    fn memory(&self) -> Result<MemoryInfo>;

    /// Bytes of dynamic shared memory that a block can have.
    fn shared_max(&self) -> usize;

    fn alloc(&self, len: usize) -> Result<Self::Buffer>;

    fn alloc_pinned(&self, len: usize) -> Result<Self::Pinned>;

    fn stream(&self) -> Result<Self::Stream>;

    fn event(&self) -> Result<Self::Event>;

    /// An event that remembers when it was reached.
    fn timer(&self) -> Result<Self::Event>;

    /// Seconds of the device from one timer to another, both recorded on one stream and seen.
    fn elapsed_s(&self, from: &Self::Event, to: &Self::Event) -> Result<f64>;

    /// Seconds on the clock of the host that waits for it.
    fn now_s(&self) -> f64;

    /// The whole of `from` to the start of `to`.
    ///
    /// # Safety
    /// Until an event recorded behind it is seen, `from` is not written and neither is dropped.
    unsafe fn copy_in(&self, stream: &Self::Stream, to: &Self::Buffer, from: &Self::Pinned) -> Result<()>;

    /// The start of `from` to the whole of `to`.
    ///
    /// # Safety
    /// Until an event recorded behind it is seen, `to` is neither read nor written, and neither is dropped.
    unsafe fn copy_out(
        &self,
        stream: &Self::Stream,
        to: &mut Self::Pinned,
        from: &Self::Buffer,
    ) -> Result<()>;

    /// # Safety
    /// `args` is what the kernel of that name takes, its addresses are of buffers large enough for what the kernel
    /// does there, and these are not dropped until an event recorded behind it is seen.
    unsafe fn launch(&self, stream: &Self::Stream, launch: Launch<'_>) -> Result<()>;

    /// The event is seen once all that was given to the stream before is done.
    fn record(&self, stream: &Self::Stream, event: &Self::Event) -> Result<()>;

    /// What is given to the stream from now on starts after the event, as it was recorded last.
    fn wait(&self, stream: &Self::Stream, event: &Self::Event) -> Result<()>;

    /// Returns once the event, as it was recorded last, is seen.
    fn synchronize(&self, event: &Self::Event) -> Result<()>;

    /// What `work` launches on `stream`, to be done as often as one likes; nothing is done yet.
    fn capture(&self, stream: &Self::Stream, work: &mut dyn FnMut() -> Result<()>) -> Result<Self::Graph>;

    /// # Safety
    /// As of every launch that the graph holds.
    unsafe fn replay(&self, stream: &Self::Stream, graph: &Self::Graph) -> Result<()>;
}
