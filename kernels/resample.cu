// One direction of the separable resampler, which scales chroma, scales to exact target sizes, and is the network `none`.
//
// in: [.., W] f32 -> out: [H', W'] f32; sample k along the direction is the sum of `count` inputs from starts[k] on,
// weighted by weights[k].
// Grid: (W' / 256, H'); one sample per thread.
// Shared memory: none.
// Bound: memory, as neighbouring samples share their inputs in L1: 12 FLOP for 8 bytes per sample.
// Counted (make cuda-budget): 0.04 GB, 0.01 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: pixel::resample::Resampler
#include "common.cuh"

struct Resample {
    const float *in;
    float *out;
    const u32 *starts;    // [W' or H']
    const float *weights; // [W' or H', count]
    u32 count;
    u32 vertical;
    u32 in_width;
    u32 out_width, out_height;
};

DEVICE void resample_sample(const Resample &args) {
    const u32 x = blockIdx.x * THREADS + threadIdx.x, y = blockIdx.y;
    if (x >= args.out_width) {
        return;
    }
    const u32 k = args.vertical ? y : x;
    const u64 start = load(args.starts + k);
    const float *in = args.in + (args.vertical ? start * args.in_width + x : (u64)y * args.in_width + start);
    const u32 step = args.vertical ? args.in_width : 1;
    const float *weights = args.weights + (u64)k * args.count;
    float sum = 0.0f;
    for (u32 i = 0; i < args.count; ++i) {
        sum += load(weights + i) * load(in + (u64)i * step);
    }
    store(args.out + (u64)y * args.out_width + x, sum);
}

KERNEL(resample, Resample, THREADS, resample_sample(args))
