// Ingest: a component of a frame to a plane of f32.
//
// from: [H, W] code values in the pixel format's layout -> to: [H, W] f32, (code - zero) / unit.
// Grid: (W / 256, H); one sample per thread.
// Shared memory: none.
// Bound: memory, 1 FLOP for 5 bytes.
// Counted (make cuda-budget): 0.02 GB, 0.01 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: pixel::read::read_component
#include "common.cuh"

struct Ingest {
    const u8 *from;  // The component's first sample.
    float *to;
    u32 width, height;
    u32 linesize, step; // Bytes between rows and between samples.
    u32 word, big_endian;
    u32 shift, mask;
    float zero, unit;
};

DEVICE void ingest_sample(const Ingest &args) {
    const u32 x = blockIdx.x * THREADS + threadIdx.x, y = blockIdx.y;
    if (x >= args.width) {
        return;
    }
    const u8 *from = args.from + (u64)y * args.linesize + (u64)x * args.step;
    float value;
    if (args.word == WORD_F32) {
        const u32 bits = load((const u32 *)from);
        value = __uint_as_float(args.big_endian ? swap32(bits) : bits);
    } else {
        u32 code = args.word == WORD_U8 ? load(from) : load((const u16 *)from);
        code = args.big_endian ? swap16(code) : code;
        value = ((float)(code >> args.shift & args.mask) - args.zero) / args.unit;
    }
    store(args.to + (u64)y * args.width + x, value);
}

KERNEL(ingest, Ingest, THREADS, ingest_sample(args))
