//! The emulated device against plain computations, and faults that it has to find.

use std::sync::OnceLock;

use bytemuck::{NoUninit, Pod};
use half::f16;

use super::super::device::{Buffer, Device, Launch, Pinned};
use super::streams::{DeviceMemory, PinnedMemory};
use super::*;
use crate::error::Result;

const THREADS: usize = 256;

/// `operations.cu`.
fn operations() -> Arc<Library> {
    static LIBRARY: OnceLock<Arc<Library>> = OnceLock::new();
    let build = || Library::build(&tree("kernels"), &tree("tests/emulated/operations.cu"), "-O2");
    LIBRARY.get_or_init(build).clone()
}

/// All orders of lanes, with eager and late copies.
fn orders() -> impl Iterator<Item = Options> {
    let lanes = [LaneOrder::Forward, LaneOrder::Reverse, LaneOrder::Random];
    lanes.into_iter().flat_map(|lanes| {
        [CopyMode::Eager, CopyMode::Late].map(|copies| Options {
            lanes,
            copies,
            library: operations(),
            ..Options::default()
        })
    })
}

fn seeds() -> impl Iterator<Item = Options> {
    (0..64).map(|seed| Options { seed, library: operations(), ..Options::default() })
}

/// A device with one stream, which is waited for after each call.
struct Bench {
    device: Emulated,
    stream: usize,
}

impl Bench {
    fn new(options: Options) -> Bench {
        let device = Emulated::new(options);
        let stream = device.stream().unwrap();
        Bench { device, stream }
    }

    fn finish(&self) -> Result<()> {
        let event = self.device.event()?;
        self.device.record(&self.stream, &event)?;
        self.device.synchronize(&event)
    }

    fn room<T>(&self, len: usize) -> DeviceMemory {
        self.device.alloc(len * size_of::<T>()).unwrap()
    }

    fn put<T: NoUninit>(&self, values: &[T]) -> DeviceMemory {
        let buffer = self.room::<T>(values.len());
        let pinned = pinned(&self.device, bytemuck::cast_slice(values));
        // SAFETY: both live until the stream has finished.
        unsafe { self.device.copy_in(&self.stream, &buffer, &pinned).unwrap() };
        self.finish().unwrap();
        buffer
    }

    fn get<T: Pod>(&self, buffer: &DeviceMemory) -> Vec<T> {
        let mut pinned = self.device.alloc_pinned(buffer.len()).unwrap();
        // SAFETY: both live until the stream has finished.
        unsafe { self.device.copy_out(&self.stream, &mut pinned, buffer).unwrap() };
        self.finish().unwrap();
        let mut values = vec![T::zeroed(); buffer.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(pinned.bytes());
        values
    }

    fn launch(&self, kernel: &'static str, blocks: usize, shared: usize, args: &impl NoUninit) -> Result<()> {
        let args = bytemuck::bytes_of(args);
        let (grid, shared) = ([blocks as u32, 1, 1], shared as u32);
        // SAFETY: the device checks every access.
        unsafe {
            self.device
                .launch(&self.stream, Launch { kernel, grid, threads: THREADS as u32, shared, args })?
        };
        self.finish()
    }

    fn traffic(&self) -> Traffic {
        self.device.watch().trace().last().expect("a launch").traffic
    }
}

fn pinned(device: &Emulated, bytes: &[u8]) -> PinnedMemory {
    let mut pinned = device.alloc_pinned(bytes.len()).unwrap();
    pinned.bytes_mut().copy_from_slice(bytes);
    pinned
}

/// Asserts that every value is within a relative `tolerance`; NaN never is.
#[track_caller]
fn close(actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance * e.abs().max(1.0), "value {i} is {a} and not {e}");
    }
}

/// Weyl's sequence: spread evenly over -1..1.
fn spread(len: usize, step: f64) -> Vec<f32> {
    (1..=len).map(|i| ((i as f64 * step).fract() * 2.0 - 1.0) as f32).collect()
}

#[test]
#[should_panic = "value 0 is NaN"]
fn nothing_is_close_to_nan() {
    close(&[f32::NAN], &[0.0], f32::INFINITY);
}

#[test]
fn every_f16_is_unpacked_and_values_between_are_rounded_to_even() {
    let codes: Vec<u16> = (0..=u16::MAX).collect();
    let between = |code: &u16| {
        let (low, high) = (f16::from_bits(*code).to_f32(), f16::from_bits(code.wrapping_add(1)).to_f32());
        // In the middle, a little above, or anything at all.
        match code % 3 {
            0 => low + (high - low) / 2.0,
            1 => low + (high - low) * 0.501,
            _ => f32::from_bits(u32::from(*code).wrapping_mul(0x9e37_79b9)),
        }
    };
    let exact: Vec<f32> = codes.iter().map(between).collect();
    let bench = Bench::new(orders().next().unwrap());
    let (pairs, exact_buffer) = (bench.put(&codes), bench.put(&exact));
    let (values, rounded) = (bench.room::<f32>(codes.len()), bench.room::<u16>(codes.len()));
    let args = [&pairs, &values, &exact_buffer, &rounded].map(Buffer::address);
    bench.launch("convert", codes.len() / 2 / THREADS, 0, &args).unwrap();
    for (code, value) in codes.iter().zip(bench.get::<f32>(&values)) {
        let expected = f16::from_bits(*code).to_f32();
        assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(), "{code:#x}");
    }
    for (exact, rounded) in exact.iter().zip(bench.get::<u16>(&rounded)) {
        let (rounded, expected) = (f16::from_bits(rounded), f16::from_f32(*exact));
        assert!(
            rounded.to_bits() == expected.to_bits() || rounded.is_nan() && expected.is_nan(),
            "{exact} is {rounded} and not {expected}"
        );
    }
}

#[test]
fn functions_have_the_stated_precision() {
    let x: Vec<f32> = spread(THREADS, 0.618_033_988_7).iter().map(|x| x * 20.0).collect();
    let bench = Bench::new(orders().next().unwrap());
    let from = bench.put(&x);
    let to = [0; 3].map(|_| bench.room::<f32>(THREADS));
    bench.launch("functions", 1, 0, &[&from, &to[0], &to[1], &to[2]].map(Buffer::address)).unwrap();
    let [exp2, reciprocal, reciprocal_root] = to.map(|buffer| bench.get::<f32>(&buffer));
    let check = |actual: f32, expected: f64| {
        let error = (f64::from(actual) / expected - 1.0).abs();
        assert!(error < 2f64.powi(-22), "{actual} and not {expected}");
    };
    for (i, x) in x.iter().map(|x| f64::from(*x)).enumerate() {
        check(exp2[i], x.exp2());
        check(reciprocal[i], x.recip());
        if x > 0.0 {
            check(reciprocal_root[i], x.sqrt().recip());
        }
    }
}

#[test]
fn a_shuffle_returns_the_value_of_the_masked_lane() {
    let values = spread(THREADS, 0.618);
    for options in orders() {
        let bench = Bench::new(options);
        let (from, to) = (bench.put(&values), bench.room::<f32>(THREADS));
        for mask in [1, 2, 4, 8, 16, 31] {
            bench.launch("exchange", 1, 0, &[from.address(), to.address(), mask]).unwrap();
            let expected: Vec<f32> = (0..THREADS).map(|i| values[i ^ mask as usize]).collect();
            assert_eq!(bench.get::<f32>(&to), expected, "mask {mask}");
        }
    }
}

#[test]
fn lanes_load_their_parts_of_each_matrix() {
    let rows: Vec<[u16; 8]> = (0..32).map(|row| std::array::from_fn(|i| row * 8 + i as u16)).collect();
    for options in orders() {
        let bench = Bench::new(options);
        let from = bench.put(rows.as_flattened());
        let (four, two) = (bench.room::<[u32; 4]>(THREADS), bench.room::<[u32; 2]>(THREADS));
        bench.launch("matrices", 1, 32 * 16, &[&from, &four, &two].map(Buffer::address)).unwrap();
        let expected = |thread: usize, matrix: usize| {
            let (row, column) = (rows[matrix * 8 + thread % 32 / 4], thread % 4 * 2);
            u32::from(row[column]) | u32::from(row[column + 1]) << 16
        };
        let (four, two) = (bench.get::<[u32; 4]>(&four), bench.get::<[u32; 2]>(&two));
        for thread in 0..THREADS {
            assert_eq!(four[thread], std::array::from_fn(|matrix| expected(thread, matrix)), "{thread}");
            assert_eq!(two[thread], std::array::from_fn(|matrix| expected(thread, matrix)), "{thread}");
        }
    }
}

#[test]
fn products_are_those_of_the_matrices_that_lanes_hold() {
    let f16s = |len, step| -> Vec<f16> { spread(len, step).into_iter().map(f16::from_f32).collect() };
    let (a, b, d) = (f16s(16 * 16, 0.618), f16s(16 * 8, 0.7321), spread(16 * 8, 0.2361));
    let pair = |low: f16, high: f16| u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16;
    // Lane l holds of a rows l / 4 and l / 4 + 8, columns 2 · (l % 4) and the next; of b a column and two rows.
    let lanes_of = |lane: usize| (lane / 4, lane % 4 * 2);
    let a_held = |lane: usize| -> [u32; 4] {
        let (row, column) = lanes_of(lane);
        std::array::from_fn(|i| {
            let at = (row + i % 2 * 8) * 16 + column + i / 2 * 8;
            pair(a[at], a[at + 1])
        })
    };
    let b_held = |lane: usize| -> [u32; 2] {
        let (column, row) = lanes_of(lane);
        std::array::from_fn(|i| pair(b[(row + 8 * i) * 8 + column], b[(row + 8 * i + 1) * 8 + column]))
    };
    let held = |all: &[f32]| -> Vec<f32> {
        (0..128)
            .map(|i| {
                let ((row, column), k) = (lanes_of(i / 4), i % 4);
                all[(row + k / 2 * 8) * 8 + column + k % 2]
            })
            .collect()
    };
    let product = |depth: usize| -> Vec<f32> {
        let sum = |i: usize| {
            let terms = (0..depth).map(|k| a[i / 8 * 16 + k].to_f64() * b[k * 8 + i % 8].to_f64());
            (f64::from(d[i]) + terms.sum::<f64>()) as f32
        };
        held(&(0..128).map(sum).collect::<Vec<_>>())
    };
    for options in orders() {
        let bench = Bench::new(options);
        let a_buffer = bench.put(&(0..32).flat_map(a_held).collect::<Vec<_>>());
        let b_buffer = bench.put(&(0..32).flat_map(b_held).collect::<Vec<_>>());
        let d_buffer = bench.put(&held(&d));
        let (of_16, of_8) = (bench.room::<f32>(128), bench.room::<f32>(128));
        let args = [&a_buffer, &b_buffer, &d_buffer, &of_16, &of_8].map(Buffer::address);
        bench.launch("product", 1, 0, &args).unwrap();
        // Sixteen additions, each to 2^-24 of a sum below 16.
        close(&bench.get::<f32>(&of_16), &product(16), 1.6e-5);
        close(&bench.get::<f32>(&of_8), &product(8), 1.6e-5);
    }
}

#[test]
fn the_matrix_of_colours_is_that_of_the_cpu() {
    let matrix = [[0.2126, 0.7152, 0.0722], [-0.1146, -0.3854, 0.5], [0.5, -0.4542, -0.0458]];
    let len = 1000;
    let mut expected = spread(3 * len, 0.618);
    for options in orders() {
        let bench = Bench::new(Options { library: Library::of_the_tree(), ..options });
        let planes = bench.put(&expected);
        let mut args = [0u32; 14];
        args[..2].copy_from_slice(bytemuck::cast_slice(&[planes.address()]));
        args[2] = len as u32;
        args[4..13].copy_from_slice(bytemuck::cast_slice(matrix.as_flattened()));
        bench.launch("matrix", len.div_ceil(THREADS), 0, &args).unwrap();
        crate::pixel::matrix::apply(&matrix, &mut expected);
        close(&bench.get::<f32>(&planes), &expected, 1e-6);
    }
}

/// As in `operations.cu`.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    NoWait,
    NoBarrier,
    NoStore,
    LoadPastEnd,
    StorePastEnd,
    CopyPastEnd,
    LoadNowhere,
    LoadMisaligned,
    CopyMisaligned,
    CopyOutside,
    MatrixMisaligned,
    MatrixOutside,
    BarriersApart,
    EndedEarly,
    LanesApart,
    MeetingsApart,
}

const BLOCKS: usize = 2;

/// A bench, and the buffers that `reverse` reads and fills.
fn numbers(options: Options) -> (Bench, [DeviceMemory; 2]) {
    let bench = Bench::new(options);
    let numbers: Vec<[f32; 4]> = (1..=BLOCKS * THREADS).map(|i| [i as f32; 4]).collect();
    let buffers = [bench.put(&numbers), bench.room::<[f32; 4]>(numbers.len())];
    (bench, buffers)
}

/// Whether `reverse` copies it.
fn is_copied(i: usize) -> bool {
    !(i % THREADS).is_multiple_of(3)
}

/// The output of `reverse` for numbers from 1 on, and the expected output.
fn reverse(options: Options, fault: Fault) -> Result<[Vec<[f32; 4]>; 2]> {
    let (bench, [from, to]) = numbers(options);
    let args = [from.address(), to.address(), fault as u64 | 64 << 32];
    bench.launch("reverse", BLOCKS, THREADS * 16, &args)?;
    let kept = |i: usize| if is_copied(i) { [(i + 1) as f32; 4] } else { [0.0; 4] };
    let expected = (0..BLOCKS * THREADS).map(|i| kept(i / THREADS * THREADS + THREADS - 1 - i % THREADS));
    Ok([bench.get(&to), expected.collect()])
}

#[test]
fn a_sector_is_counted_once_a_launch_and_once_a_block() {
    let (bench, [from, to]) = numbers(orders().next().unwrap());
    for blocks in [BLOCKS, 1] {
        bench.launch("reverse", blocks, THREADS * 16, &[from.address(), to.address(), 0]).unwrap();
        let count = blocks * THREADS;
        let sectors =
            (0..count / 2).filter(|pair| is_copied(2 * pair) || is_copied(2 * pair + 1)).count() as u64;
        let expected = Traffic {
            read: sectors,
            written: count as u64 / 2,
            // No two blocks share a sector.
            read_by_blocks: sectors,
            written_by_blocks: count as u64 / 2,
            shared: 16 * THREADS as u64,
            ..Traffic::default()
        };
        assert_eq!(bench.traffic(), expected);
    }
}

#[test]
fn threads_exchange_values_in_every_order() {
    for options in orders() {
        let [actual, expected] = reverse(options, Fault::None).unwrap();
        assert_eq!(actual, expected);
    }
}

#[test]
fn a_missing_wait_in_a_kernel_shows_in_some_order() {
    // A different number; NaN differs.
    let wrong = |(actual, expected): (&[f32; 4], &[f32; 4])| actual != expected;
    for (fault, orders_that_show) in [(Fault::NoWait, 3), (Fault::NoBarrier, 6)] {
        let shows = |options: &Options| {
            let [actual, expected] = reverse(options.clone(), fault).unwrap();
            actual.iter().zip(&expected).any(wrong)
        };
        assert_eq!(orders().filter(shows).count(), orders_that_show, "{fault:?}");
    }
    for late in orders().filter(|options| options.copies == CopyMode::Late) {
        let [actual, _] = reverse(late, Fault::NoWait).unwrap();
        assert!(
            actual.as_flattened().iter().all(|value| value.is_nan()),
            "shared memory is no number at first"
        );
    }
    let [actual, expected] = reverse(orders().next().unwrap(), Fault::NoStore).unwrap();
    let odd: Vec<usize> = (0..actual.len()).filter(|&i| actual[i] != expected[i]).collect();
    assert_eq!(odd, [THREADS + 37]);
    assert!(actual[odd[0]][0].is_nan(), "memory that was never written is NaN");
}

#[test]
fn kernel_errors_are_reported_with_their_place() {
    let faults = [
        (Fault::LoadPastEnd, "are read, 8 bytes past the end of a buffer of 8192 bytes"),
        (Fault::StorePastEnd, "are written, 4 bytes past the end of a buffer of 8192 bytes"),
        (Fault::CopyPastEnd, "are read, 16 bytes past the end of a buffer of 8192 bytes"),
        (Fault::LoadNowhere, "4 bytes at 0x40 are read, which is in no buffer"),
        (Fault::LoadMisaligned, "are read, which is not aligned"),
        (Fault::CopyMisaligned, "does not go to 16 aligned bytes of shared memory"),
        (Fault::CopyOutside, "does not go to 16 aligned bytes of shared memory"),
        (Fault::MatrixMisaligned, "a row of a matrix is not 16 aligned bytes of shared memory"),
        (Fault::MatrixOutside, "a row of a matrix is not 16 aligned bytes of shared memory"),
        (Fault::BarriersApart, "waits at the barrier of operations.cu:"),
        (Fault::EndedEarly, "thread 37: has ended, and thread 0 waits at the barrier of operations.cu:"),
        (Fault::LanesApart, "thread 37: has ended, and thread 32 loads four matrices"),
        (Fault::MeetingsApart, "thread 37: shuffles, and thread 32 loads four matrices"),
    ];
    for (fault, message) in faults {
        for options in orders() {
            let error =
                reverse(options, fault).err().unwrap_or_else(|| panic!("{fault:?} passes")).to_string();
            assert!(error.contains(message), "{fault:?}: {error}");
            assert!(error.contains("reverse, block (0, 0, 0), thread 37: "), "{fault:?}: {error}");
        }
    }
}

#[test]
fn an_impossible_launch_is_an_error() {
    let bench = Bench::new(Options { shared_max: 64 << 10, ..orders().next().unwrap() });
    for (kernel, blocks, shared) in [("reverse", 1, (64 << 10) + 1), ("reverse", 0, 0)] {
        assert!(bench.launch(kernel, blocks, shared, &[0u64; 3]).is_err());
    }
    let error = bench.launch("reverse", 1, 0, &[0u64; 2]).unwrap_err();
    assert!(error.to_string().contains("no such kernel with 16 bytes of arguments"), "{error}");
}

#[test]
fn a_stream_keeps_its_order() {
    for options in seeds() {
        let Bench { device, stream } = Bench::new(options);
        let buffer = device.alloc(64).unwrap();
        let (first, second) = (pinned(&device, &[1; 64]), pinned(&device, &[2; 64]));
        let mut out = device.alloc_pinned(64).unwrap();
        let event = device.event().unwrap();
        // SAFETY: all live until the event is completed.
        unsafe {
            device.copy_in(&stream, &buffer, &first).unwrap();
            device.copy_in(&stream, &buffer, &second).unwrap();
            device.copy_out(&stream, &mut out, &buffer).unwrap();
        }
        device.record(&stream, &event).unwrap();
        assert_eq!(out.bytes(), [0xff; 64], "nothing is there before it is waited for");
        device.synchronize(&event).unwrap();
        assert_eq!(out.bytes(), [2; 64]);
    }
}

/// The value that a stream reads after it waits for another's first copy, which a second one follows.
fn read_between_writes(options: Options) -> u8 {
    let Bench { device, stream: writer } = Bench::new(options);
    let reader = device.stream().unwrap();
    let buffer = device.alloc(64).unwrap();
    let (first, second) = (pinned(&device, &[1; 64]), pinned(&device, &[2; 64]));
    let mut out = device.alloc_pinned(64).unwrap();
    let (written, read) = (device.event().unwrap(), device.event().unwrap());
    // SAFETY: all live until both events are completed.
    unsafe {
        device.copy_in(&writer, &buffer, &first).unwrap();
        device.record(&writer, &written).unwrap();
        device.wait(&reader, &written).unwrap();
        device.copy_in(&writer, &buffer, &second).unwrap();
        device.record(&writer, &written).unwrap();
        device.copy_out(&reader, &mut out, &buffer).unwrap();
    }
    device.record(&reader, &read).unwrap();
    device.synchronize(&read).unwrap();
    device.synchronize(&written).unwrap();
    out.bytes()[0]
}

#[test]
fn a_wait_is_for_the_event_as_it_was_recorded_then() {
    let mut seen: Vec<u8> = seeds().map(read_between_writes).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [1, 2], "the second record is not waited for, and the first one is");
}

#[test]
fn a_forgotten_wait_shows() {
    let forgetful = seeds().map(|options| Options { forget_wait: Some(0), ..options });
    assert!(forgetful.map(read_between_writes).any(|value| value == 0xff));
}

#[test]
fn copies_of_both_directions_and_launches_overlap() {
    for options in seeds() {
        let Bench { device, .. } =
            Bench::new(Options { launch_ns: Some(1000), copy_bytes_per_us: 1, ..options });
        let (up, down) = (device.alloc(1000).unwrap(), device.alloc(1000).unwrap());
        let (from, mut to) = (device.alloc_pinned(1000).unwrap(), device.alloc_pinned(1000).unwrap());
        let streams = [0; 3].map(|_| device.stream().unwrap());
        let events = [0; 3].map(|_| device.event().unwrap());
        let launch = Launch { kernel: "reverse", grid: [1; 3], threads: 256, shared: 0, args: &[] };
        // SAFETY: all live until the events are completed; no launch is run.
        unsafe {
            device.copy_in(&streams[0], &up, &from).unwrap();
            device.launch(&streams[1], launch).unwrap();
            device.launch(&streams[1], launch).unwrap();
            device.copy_out(&streams[2], &mut to, &down).unwrap();
        }
        for (stream, event) in streams.iter().zip(&events) {
            device.record(stream, event).unwrap();
        }
        events.iter().for_each(|event| device.synchronize(event).unwrap());
        let trace = device.watch().trace();
        let micros = |span: &Span| (span.stream, span.start_ns / 1000, span.end_ns / 1000);
        let mut spans: Vec<_> = trace.iter().map(micros).collect();
        spans.sort_unstable();
        // The first stream is the bench's. A copy takes 1000 µs, a launch 1.
        assert_eq!(spans, [(1, 0, 1000), (2, 0, 1), (2, 1, 2), (3, 0, 1000)]);
    }
}

#[test]
fn a_graph_runs_only_when_it_is_replayed() {
    for options in orders() {
        let bench = Bench::new(options);
        let (from, to) = (bench.put(&spread(THREADS, 0.618)), bench.room::<f32>(THREADS));
        let args = [from.address(), to.address(), 1];
        let launch = Launch {
            kernel: "exchange",
            grid: [1; 3],
            threads: THREADS as u32,
            shared: 0,
            args: bytemuck::bytes_of(&args),
        };
        // SAFETY: both buffers live longer than the graph.
        let mut work = || unsafe { bench.device.launch(&bench.stream, launch) };
        let graph = bench.device.capture(&bench.stream, &mut work).unwrap();
        assert!(bench.get::<f32>(&to).iter().all(|value| value.is_nan()));
        for _ in 0..2 {
            // SAFETY: as above.
            unsafe { bench.device.replay(&bench.stream, &graph).unwrap() };
        }
        let values = bench.get::<f32>(&from);
        assert!(bench.get::<f32>(&to).iter().enumerate().all(|(i, value)| *value == values[i ^ 1]));
    }
}

#[test]
#[should_panic = "nothing is allocated in a capture"]
fn nothing_is_allocated_in_a_capture() {
    let bench = Bench::new(orders().next().unwrap());
    let _ = bench.device.capture(&bench.stream, &mut || bench.device.alloc(1).map(drop));
}

#[test]
#[should_panic = "the memory was dropped before the copy was completed"]
fn memory_dropped_too_early_is_detected() {
    let bench = Bench::new(orders().next().unwrap());
    let buffer = bench.device.alloc(64).unwrap();
    let from = pinned(&bench.device, &[1; 64]);
    // SAFETY: the memory is gone, which is detected before it is read.
    unsafe { bench.device.copy_in(&bench.stream, &buffer, &from).unwrap() };
    drop(from);
    let _ = bench.finish();
}

#[test]
#[should_panic = "there is no nowhere.cu"]
fn a_fault_needs_a_place() {
    let _ = Library::with_fault("nowhere.cu", "BARRIER();", 0, "");
}
