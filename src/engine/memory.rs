//! Memory of planes and tensors, and the error where it cannot be had.

use std::alloc::{Layout, alloc_zeroed};

use crate::error::{Error, ErrorKind, Result};

/// What to do where memory is missing.
pub(crate) const REMEDY: &str = "raise the limit, choose a smaller size, or use a machine with more memory";

/// Zeroed floats in huge pages where the system has them: the networks read rows of many channels at once, each from pages
/// of its own. hasn-lite-x2 in f32 takes a tenth less time for a frame of 1280x720 on a Zen 4 (2026-11-30).
pub(crate) fn zeroed(len: usize) -> Result<Vec<f32>> {
    let mut floats = allocate(len).ok_or_else(|| {
        let problem =
            format!("{} cannot be allocated", in_units(len.saturating_mul(size_of::<f32>()) as u64));
        Error::new("memory", problem, REMEDY).with_kind(ErrorKind::OutOfMemory)
    })?;
    if cfg!(target_os = "linux") {
        advise_huge_pages(&mut floats);
    }
    Ok(floats)
}

/// As `vec![0.0; len]`, whose pages the system zeroes when they are used; `None` where there is no memory.
fn allocate(len: usize) -> Option<Vec<f32>> {
    let layout = Layout::array::<f32>(len).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
    // SAFETY: the global allocator returned `len` floats of this layout, all zero, or null.
    (!start.is_null()).then(|| unsafe { Vec::from_raw_parts(start, len, len) })
}

/// Bytes for people.
pub(crate) fn in_units(bytes: u64) -> String {
    match bytes {
        ..1_000_000 => format!("{} kB", bytes / 1000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 * 1e-9),
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(floats: &mut [f32]) {
    use rustix::mm::{Advice, madvise};

    let page = rustix::param::page_size();
    let start = floats.as_ptr().cast::<u8>().align_offset(page);
    let bytes = size_of_val(floats).saturating_sub(start) / page * page;
    // SAFETY: these are whole pages of `floats`, whose contents the advice does not change. A system without huge pages
    // refuses it, which costs time alone.
    let _ =
        unsafe { madvise(floats.as_mut_ptr().wrapping_byte_add(start).cast(), bytes, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: &mut [f32]) {}
