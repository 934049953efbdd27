// Egress: a plane of f32 to a component of a frame, rounded and clamped to the full code range.
//
// from: [H, W] f32 -> to: [H, W] code values in the pixel format's layout. Without `from`, all samples are `value`.
// Dither is ordered and the same in every frame.
// Grid: (W / 256, H); one sample per thread.
// Shared memory: none.
// Bound: memory, 4 FLOP for 5 bytes.
// Counted (make cuda-budget): 0.06 GB, 0.02 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: pixel::write::{write_component, fill_component}
#include "common.cuh"

struct Egress {
    const float *from;
    u8 *to; // The component's first sample.
    u32 width, height;
    u32 linesize, step; // Bytes between rows and between samples.
    u32 word, big_endian;
    u32 shift, mask;
    float zero, unit;
    float value;
    u32 dither;
};

// The 16x16 Bayer matrix, -0.5 to 0.5: the bits of x ^ y and of y, interleaved, lowest first.
DEVICE float bayer(u32 x, u32 y) {
    u32 rank = 0;
    for (int bit = 0; bit < 4; ++bit) {
        rank = rank << 2 | ((x ^ y) >> bit & 1) << 1 | (y >> bit & 1);
    }
    return ((float)rank + 0.5f) / 256.0f - 0.5f;
}

DEVICE void egress_sample(const Egress &args) {
    const u32 x = blockIdx.x * THREADS + threadIdx.x, y = blockIdx.y;
    if (x >= args.width) {
        return;
    }
    const float value = args.from ? load(args.from + (u64)y * args.width + x) : args.value;
    u8 *to = args.to + (u64)y * args.linesize + (u64)x * args.step;
    if (args.word == WORD_F32) {
        const u32 bits = __float_as_uint(value);
        store((u32 *)to, args.big_endian ? swap32(bits) : bits);
        return;
    }
    const float offset = args.dither ? bayer(x % 16, y % 16) : 0.0f;
    const float clamped = fminf(fmaxf(value * args.unit + args.zero + offset, 0.0f), (float)args.mask);
    const u32 code = (u32)rintf(clamped) << args.shift;
    if (args.word == WORD_U8) {
        store(to, (u8)code);
    } else {
        store((u16 *)to, (u16)(args.big_endian ? swap16(code) : code));
    }
}

KERNEL(egress, Egress, THREADS, egress_sample(args))
