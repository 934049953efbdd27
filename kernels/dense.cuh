// Dense maps on tensor cores: sixteen pixels by eight outputs at a time.
//
// A warp multiplies pixels in shared memory by weights that it reads from device memory, in the order of its lanes:
// they are few and every block wants the same ones, so that they stay in L1, which is as fast as shared memory.
#pragma once
#include "common.cuh"

// Steps of 16 (the last one may be of 8) over what is summed.
template <int K> constexpr int STEPS = (K + 15) / 16;

// Elements from pixel to pixel in shared memory: an odd number of 16-byte units, so that the eight rows of a matrix
// lie in different banks.
template <int C> constexpr int STRIDE = C / 8 % 2 ? C : C + 8;

// Pixel `i` of sixteen and, for matrices of a step's second half, the elements behind: what a lane names.
DEVICE int lane_pixel() { return threadIdx.x % 16; }
DEVICE int lane_offset() { return threadIdx.x % 32 / 16 * 8; }

// What a lane holds of sums of sixteen pixels: pixels lane_row and lane_row + 8, outputs lane_column and the next.
DEVICE int lane_row() { return threadIdx.x % 32 / 4; }
DEVICE int lane_column() { return threadIdx.x % 4 * 2; }

// sums: [pixels / 16, N / 8, 4] += pixels · weights. `rows`: the lane's pixel of each sixteen, its offset added;
// weights: [STEPS, N / 8, lane] of two words.
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

// A conv of SIDE x SIDE taps: `rows` name the upper left pixel of the window, `width` pixels of STRIDE<K> are a row of
// shared memory; weights: [SIDE, SIDE] of what `multiply` takes.
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

// Every sum starts with the bias of its output. bias: [N · 8].
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

// Sums of sixteen pixels as f16 to shared memory. `pixels`: the first of them, STRIDE<N · 8> apart.
template <int N> DEVICE void put(half *pixels, const float (&sums)[N][4]) {
    half *upper = pixels + lane_row() * STRIDE<N * 8> + lane_column();
#pragma unroll
    for (int n = 0; n < N; ++n) {
        *(u32 *)(upper + n * 8) = pack(sums[n][0], sums[n][1]);
        *(u32 *)(upper + 8 * STRIDE<N * 8> + n * 8) = pack(sums[n][2], sums[n][3]);
    }
}

// A window of a map in shared memory, zeros outside the map: `rows` x `columns` pixels, STRIDE apart, from (x0, y0) on.
// They are there after copy_async_wait and a barrier.
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

// The way back, of what lies inside the map.
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
