// Measures the device's peak rates, as a reference for benchmarks: memory copy, tensor cores, f32, special functions.
//
// from: `words` of 16 bytes -> to: the same; or: to[thread block, thread] f32, sums of `rounds` rounds that the compiler
// cannot predict.
// Grid: (thread blocks); `PROBE_COPY`: `PROBE_WORDS` words per thread.
// Shared memory: none.
// Bound: the unit it is named after; 32 bytes per word, 8 · 4096 FLOP per warp and round, 128 FLOP or 8 functions per
// thread and round.
// Counted (the emulated device): exactly these; not measured on a GPU.
// Twin: hasn_kernels::peak
#include "common.cuh"

enum ProbeKind { PROBE_COPY, PROBE_MATRIX, PROBE_F32, PROBE_SPECIAL };

struct Probe {
    const uint4 *from;
    void *to;
    u64 words;
    u32 kind, rounds;
    u32 ones; // Two f16.
    float factor, addend;
    u32 pad;
};

// Independent chains, enough to hide the latency of their operations.
constexpr int PROBE_CHAINS = 8;
constexpr int PROBE_WORDS = 4;

DEVICE void probe_copy(const Probe &args) {
    const u64 first = (u64)blockIdx.x * THREADS * PROBE_WORDS + threadIdx.x;
    uint4 words[PROBE_WORDS];
#pragma unroll
    for (int i = 0; i < PROBE_WORDS; ++i) {
        const u64 at = first + i * THREADS;
        words[i] = at < args.words ? load(args.from + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < PROBE_WORDS; ++i) {
        const u64 at = first + i * THREADS;
        if (at < args.words) {
            store((uint4 *)args.to + at, words[i]);
        }
    }
}

DEVICE float probe_matrix(const Probe &args) {
    const u32 a[4] = {args.ones, args.ones, args.ones, args.ones};
    float sums[PROBE_CHAINS][4] = {};
    for (u32 round = 0; round < args.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < PROBE_CHAINS; ++i) {
            multiply_add(sums[i], a, args.ones, args.ones);
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PROBE_CHAINS; ++i) {
        sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
    }
    return sum;
}

DEVICE float probe_f32(const Probe &args) {
    constexpr int AGAIN = 8;
    float sums[PROBE_CHAINS] = {};
    for (u32 round = 0; round < args.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < AGAIN * PROBE_CHAINS; ++i) {
            sums[i % PROBE_CHAINS] = sums[i % PROBE_CHAINS] * args.factor + args.addend;
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PROBE_CHAINS; ++i) {
        sum += sums[i];
    }
    return sum;
}

// Iterates x = 2^-x, which converges to 0.6412.
DEVICE float probe_special(const Probe &args) {
    float values[PROBE_CHAINS] = {};
    for (u32 round = 0; round < args.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < PROBE_CHAINS; ++i) {
            values[i] = exp2(-values[i]);
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PROBE_CHAINS; ++i) {
        sum += values[i];
    }
    return sum;
}

DEVICE void probe_all(const Probe &args) {
    if (args.kind == PROBE_COPY) {
        probe_copy(args);
        return;
    }
    const float sum = args.kind == PROBE_MATRIX ? probe_matrix(args)
                      : args.kind == PROBE_F32  ? probe_f32(args)
                                                : probe_special(args);
    store((float *)args.to + (u64)blockIdx.x * THREADS + threadIdx.x, sum);
}

KERNEL(probe, Probe, THREADS, probe_all(args))
