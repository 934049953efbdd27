// Dense convolutions on tensor cores: 16 pixels by 8 outputs at a time.
//
// A warp multiplies pixels in shared memory by weights that it reads from device memory, stored in lane order. The
// weights are small and the same for every block, so that they stay in L1, which is as fast as shared memory.
#pragma once
#include "common.cuh"

// Steps of 16 (the last one may be 8) over the summed dimension.
template <int K> constexpr int STEPS = (K + 15) / 16;

// Elements between pixels in shared memory: an odd number of 16-byte units, so that the eight rows of a matrix lie in
// different banks.
template <int C> constexpr int STRIDE = C / 8 % 2 ? C : C + 8;

// The pixel of 16 whose row address a lane passes, and its element offset: 8 for the second half of a step.
DEVICE int lane_pixel() { return threadIdx.x % 16; }
DEVICE int lane_offset() { return threadIdx.x % 32 / 16 * 8; }

// The sums of 16 pixels that a lane holds: pixels lane_row and lane_row + 8, outputs lane_column and the next.
DEVICE int lane_row() { return threadIdx.x % 32 / 4; }
DEVICE int lane_column() { return threadIdx.x % 4 * 2; }

// sums: [pixels / 16, N / 8, 4] += pixels · weights. `rows`: the lane's pixel in each tile of 16, with its offset;
// weights: [STEPS, N / 8, lane], two words each.
template <int K, int TILES, int N>
DEVICE void multiply(float (&sums)[TILES][N][4], const half *const (&rows)[TILES], const uint2 *weights) {
    const uint2 *lane = weights + threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < K / 16; ++step) {
        u32 pixels[TILES][4];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            load_matrices(pixels[tile], rows[tile] + step * 16);
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const uint2 w = load(lane + (step * N + n) * 32);
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) {
                multiply_add(sums[tile][n], pixels[tile], w.x, w.y);
            }
        }
    }
    if constexpr (K % 16 == 8) {
        u32 pixels[TILES][2];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            load_matrices(pixels[tile], rows[tile] + K / 16 * 16);
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const uint2 w = load(lane + (K / 16 * N + n) * 32);
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) {
                multiply_add(sums[tile][n], pixels[tile][0], pixels[tile][1], w.x);
            }
        }
    }
}

// A conv of SIDE x SIDE taps. `rows`: the upper left pixel of the window; a row of shared memory has `width` pixels,
// STRIDE<K> apart; weights: [SIDE, SIDE] times the layout of `multiply`.
template <int SIDE, int K, int TILES, int N>
DEVICE void convolve(float (&sums)[TILES][N][4], const half *const (&rows)[TILES], int width, const uint2 *weights) {
#pragma unroll 1
    for (int tap = 0; tap < SIDE * SIDE; ++tap) {
        const half *shifted[TILES];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            shifted[tile] = rows[tile] + (tap / SIDE * width + tap % SIDE) * STRIDE<K>;
        }
        multiply<K>(sums, shifted, weights + tap * STEPS<K> * N * 32);
    }
}

// Initialises every sum with the bias of its output. bias: [N · 8].
template <int TILES, int N> DEVICE void start(float (&sums)[TILES][N][4], const float *bias) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const float2 b = load((const float2 *)(bias + n * 8 + lane_column()));
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            sums[tile][n][0] = sums[tile][n][2] = b.x;
            sums[tile][n][1] = sums[tile][n][3] = b.y;
        }
    }
}

// Calls `f` with the indices of every sum.
template <int TILES, int N, class F> DEVICE void for_each(const float (&)[TILES][N][4], F f) {
#pragma unroll
    for (int i = 0; i < TILES * N * 4; ++i) {
        f(i / (N * 4), i / 4 % N, i % 4);
    }
}

// Stores the sums of 16 pixels as f16 to shared memory. `pixels`: the first of them, STRIDE<N · 8> apart.
template <int N> DEVICE void put(half *pixels, const float (&sums)[N][4]) {
    half *upper = pixels + lane_row() * STRIDE<N * 8> + lane_column();
#pragma unroll
    for (int n = 0; n < N; ++n) {
        *(u32 *)(upper + n * 8) = pack(sums[n][0], sums[n][1]);
        *(u32 *)(upper + 8 * STRIDE<N * 8> + n * 8) = pack(sums[n][2], sums[n][3]);
    }
}

// Copies a window of `rows` x `columns` pixels from (x0, y0) to shared memory, STRIDE apart, with zeros outside the map.
// The pixels are visible after copy_async_wait and a barrier.
template <int C> DEVICE void fetch(half *to, const half *map, int x0, int y0, int columns, int rows, int width, int height) {
    constexpr int UNITS = C / 8;
    for (int i = threadIdx.x; i < rows * columns * UNITS; i += THREADS) {
        const int pixel = i / UNITS, unit = i % UNITS;
        const int x = x0 + pixel % columns, y = y0 + pixel / columns;
        const bool inside = x >= 0 && x < width && y >= 0 && y < height;
        const half *from = inside ? map + ((u64)y * width + x) * C + unit * 8 : map;
        copy_async(to + pixel * STRIDE<C> + unit * 8, from, inside);
    }
}

// Copies a window from shared memory to the map, without the pixels outside the map.
template <int C> DEVICE void give(half *map, const half *from, int x0, int y0, int columns, int rows, int width, int height) {
    constexpr int UNITS = C / 8;
    for (int i = threadIdx.x; i < rows * columns * UNITS; i += THREADS) {
        const int pixel = i / UNITS, unit = i % UNITS;
        const int x = x0 + pixel % columns, y = y0 + pixel / columns;
        if (x < width && y < height) {
            const uint4 *words = (const uint4 *)(from + pixel * STRIDE<C> + unit * 8);
            store((uint4 *)(map + ((u64)y * width + x) * C + unit * 8), *words);
        }
    }
}
