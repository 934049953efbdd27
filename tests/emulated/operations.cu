// Kernels for the tests of the emulated device: each runs one operation of `common.cuh`, and the last one commits the
// errors that the device must detect. The expected results are in the tests.
#include "common.cuh"

struct Convert {
    const u32 *pairs;
    float2 *values;
    const float2 *exact;
    u32 *rounded;
};

// Two f16 per thread.
DEVICE void convert_pair(const Convert &args) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    store(args.values + i, unpack(load(args.pairs + i)));
    const float2 exact = load(args.exact + i);
    store(args.rounded + i, pack(exact.x, exact.y));
}

struct Functions {
    const float *x;
    float *exp2, *reciprocal, *reciprocal_root;
};

DEVICE void functions_of(const Functions &args) {
    const float x = load(args.x + threadIdx.x);
    store(args.exp2 + threadIdx.x, exp2(x));
    store(args.reciprocal + threadIdx.x, reciprocal(x));
    store(args.reciprocal_root + threadIdx.x, reciprocal_root(x));
}

struct Exchange {
    const float *from;
    float *to;
    u64 mask;
};

DEVICE void exchange_lanes(const Exchange &args) {
    store(args.to + threadIdx.x, shuffle_xor(load(args.from + threadIdx.x), (int)args.mask));
}

// [32, 8] f16 in shared memory, rows in reverse order.
struct Matrices {
    const half *from;
    u32 *four; // [256, 4]
    u32 *two;  // [256, 2]
};

DEVICE void read_matrices(const Matrices &args) {
    half *tile = (half *)shared_memory();
    const int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        copy_async(tile + (31 - lane) * 8, args.from + lane * 8, true);
    }
    copy_async_wait();
    BARRIER();
    u32 four[4], two[2];
    load_matrices(four, tile + (31 - lane) * 8);
    // The addresses of the upper half of the lanes are ignored.
    load_matrices(two, lane < 16 ? tile + (31 - lane) * 8 : (half *)nullptr);
    for (int i = 0; i < 4; ++i) {
        store(args.four + threadIdx.x * 4 + i, four[i]);
    }
    for (int i = 0; i < 2; ++i) {
        store(args.two + threadIdx.x * 2 + i, two[i]);
    }
}

// A product of one warp, in the layout of its lanes.
struct Product {
    const u32 *a; // [32, 4]
    const u32 *b; // [32, 2]
    const float *d; // [32, 4]
    float *of_16, *of_8; // [32, 4]
};

DEVICE void multiply_matrices(const Product &args) {
    const int lane = threadIdx.x % 32;
    u32 a[4], b[2];
    float of_16[4], of_8[4];
    for (int i = 0; i < 4; ++i) {
        a[i] = load(args.a + lane * 4 + i);
        b[i % 2] = load(args.b + lane * 2 + i % 2);
        of_16[i] = of_8[i] = load(args.d + lane * 4 + i);
    }
    multiply_add(of_16, a, b[0], b[1]);
    multiply_add(of_8, a[0], a[1], b[0]);
    for (int i = 0; threadIdx.x < 32 && i < 4; ++i) {
        store(args.of_16 + lane * 4 + i, of_16[i]);
        store(args.of_8 + lane * 4 + i, of_8[i]);
    }
}

// from: [blocks, 256] of 16 bytes -> to: the same, each block reversed, with zeros for every third element.
struct Reverse {
    const uint4 *from;
    uint4 *to;
    u32 fault;
    u32 nowhere; // An address outside all buffers.
};

enum Fault {
    NO_FAULT,
    NO_WAIT,
    NO_BARRIER,
    NO_STORE,
    LOAD_PAST_END,
    STORE_PAST_END,
    COPY_PAST_END,
    LOAD_NOWHERE,
    LOAD_MISALIGNED,
    COPY_MISALIGNED,
    COPY_OUTSIDE,
    MATRIX_MISALIGNED,
    MATRIX_OUTSIDE,
    BARRIERS_APART,
    ENDED_EARLY,
    LANES_APART,
    MEETINGS_APART,
};

DEVICE void reverse_or_fail(const Reverse &args) {
    const u32 i = threadIdx.x, fault = args.fault;
    uint4 *tile = (uint4 *)shared_memory();
    const uint4 *from = args.from + blockIdx.x * THREADS;
    u32 words[4];
    const bool odd = i == 37;
    copy_async(odd && fault == COPY_OUTSIDE        ? tile + THREADS
               : odd && fault == COPY_MISALIGNED ? (uint4 *)((u8 *)tile + 8)
                                                 : tile + i,
               odd && fault == COPY_PAST_END ? args.from + gridDim.x * THREADS : from + i, i % 3 != 0);
    if (fault != NO_WAIT) {
        copy_async_wait();
    }
    if (odd && fault == ENDED_EARLY) {
        return;
    }
    if (odd && fault == BARRIERS_APART) {
        BARRIER();
    } else if (fault != NO_BARRIER) {
        BARRIER();
    }
    if (odd && fault == LOAD_PAST_END) {
        load((const float *)(args.from + gridDim.x * THREADS) + 1);
    } else if (odd && fault == STORE_PAST_END) {
        store((float *)(args.to + gridDim.x * THREADS), 1.0f);
    } else if (odd && fault == LOAD_NOWHERE) {
        load((const float *)(u64)args.nowhere);
    } else if (odd && fault == LOAD_MISALIGNED) {
        load((const uint2 *)((const u8 *)from + 4));
    }
    if (fault == MATRIX_MISALIGNED || fault == MATRIX_OUTSIDE) {
        load_matrices(words, (const half *)tile + (odd ? fault == MATRIX_OUTSIDE ? THREADS * 8 : 4 : 0));
    } else if (fault == MEETINGS_APART && odd) {
        shuffle_xor(1.0f, 1);
    } else if (fault == MEETINGS_APART || (fault == LANES_APART && !odd)) {
        load_matrices(words, (const half *)tile);
    }
    if (fault == NO_STORE && odd && blockIdx.x == 1) {
        return;
    }
    store(args.to + blockIdx.x * THREADS + i, tile[THREADS - 1 - i]);
}

KERNEL(convert, Convert, THREADS, convert_pair(args))
KERNEL(functions, Functions, THREADS, functions_of(args))
KERNEL(exchange, Exchange, THREADS, exchange_lanes(args))
KERNEL(matrices, Matrices, THREADS, read_matrices(args))
KERNEL(product, Product, THREADS, multiply_matrices(args))
KERNEL(reverse, Reverse, THREADS, reverse_or_fail(args))
