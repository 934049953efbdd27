// The first conv, 3x3 with zero padding: planes of the frame to the trunk.
//
// x: [in, H, W] f32 -> trunk: [H, W, C] f16. In f32 on CUDA cores: it sums over 9 or 27 inputs, which tensor cores would
// pad to 16 or 32, and is 0.1 % of the network.
// Grid: (W · C/8 / 256, H); eight channels of a pixel per thread.
// Shared memory: none.
// Bound: memory, 18 · C FLOP for 2 · C + 4 bytes per pixel.
// Counted (make cuda-budget): 0.24 GB, 0.08 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: hasn_kernels::dense, stage enter
#include "common.cuh"

struct Enter {
    const float *x;
    half *trunk;
    const float *weights; // [in, 3, 3, C]
    const float *bias;    // [C]
    int in_channels, width, height;
};

template <class S> DEVICE void enter(const Enter &args) {
    constexpr int UNITS = S::C / 8;
    const int i = blockIdx.x * THREADS + threadIdx.x;
    const int x = i / UNITS, y = blockIdx.y, first = i % UNITS * 8;
    if (x >= args.width) {
        return;
    }
    float sums[8];
    for (int c = 0; c < 8; ++c) {
        sums[c] = load(args.bias + first + c);
    }
    for (int input = 0; input < args.in_channels; ++input) {
        for (int tap = 0; tap < 9; ++tap) {
            const int from_x = x + tap % 3 - 1, from_y = y + tap / 3 - 1;
            if (from_x < 0 || from_x >= args.width || from_y < 0 || from_y >= args.height) {
                continue;
            }
            const float v = load(args.x + ((u64)input * args.height + from_y) * args.width + from_x);
            const float4 *weights = (const float4 *)(args.weights + (input * 9 + tap) * S::C + first);
            const float4 low = load(weights), high = load(weights + 1);
            sums[0] += v * low.x, sums[1] += v * low.y, sums[2] += v * low.z, sums[3] += v * low.w;
            sums[4] += v * high.x, sums[5] += v * high.y, sums[6] += v * high.z, sums[7] += v * high.w;
        }
    }
    const uint4 unit = make_uint4(pack(sums[0], sums[1]), pack(sums[2], sums[3]), pack(sums[4], sums[5]), pack(sums[6], sums[7]));
    store((uint4 *)(args.trunk + ((u64)y * args.width + x) * S::C + first), unit);
}

NETWORK_KERNEL(enter, Enter)
