// ESA's grid. `squeeze`: a 3x3 conv of stride 2 without padding, and a 7x7 max pool of stride 3. `grid`: a 3x3 conv of the
// pooled map, with zero padding.
//
// c1: [H, W, E] f16 -> pooled: [H3, W3, E] f16 -> grid: [H3, W3, E] f16.
// Grid: `squeeze`: (W3 / 4, H3 / POOL_ROWS), 4 x POOL_ROWS of pooled per thread block; `grid`: (W3 / 16, H3 / 8), 16 x 8.
// Shared memory: `squeeze`: 33 columns of c1 and 16 of the conv, 60 KB at E = 16; `grid`: the tile, 4 KB at E = 16.
// Bound: `squeeze`: c1 from L2, read 1.9 times; `grid` is negligible.
// Counted (make cuda-budget): 0.43 GB, 0.15 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: hasn_kernels::esa::{conv2, pool}, dense
#include "dense.cuh"

struct Squeeze {
    const half *c1;
    const uint2 *conv2;
    const float *bias;
    half *pooled;
    int width, height;   // Size of c1.
    int width3, height3; // Size of pooled.
};

struct Grid {
    const half *pooled;
    const uint2 *conv3;
    const float *bias;
    half *grid;
    int width, height;
};

// A thread block computes 4 columns of pooled, from 16 columns of the conv and 33 of c1.
constexpr int POOL_COLUMNS = 4, POOL_STEP = 3, POOL_SIDE = 7;
constexpr int CONV2_COLUMNS = POOL_STEP * (POOL_COLUMNS - 1) + POOL_SIDE;
constexpr int C1_COLUMNS = 2 * CONV2_COLUMNS + 1;
static_assert(CONV2_COLUMNS == 16, "sixteen pixels are a row");
// The largest number of rows that fits in 64 KB.
template <class S> constexpr int POOL_ROWS = S::E > 16 ? 1 : 4;
template <class S> constexpr int CONV2_ROWS = POOL_STEP * (POOL_ROWS<S> - 1) + POOL_SIDE;

template <class S> DEVICE void squeeze(const Squeeze &args) {
    constexpr int E = S::E, ROWS = CONV2_ROWS<S>;
    half *c1 = (half *)shared_memory();
    half *conv = c1 + (2 * ROWS + 1) * C1_COLUMNS * STRIDE<E>;
    const int x0 = blockIdx.x * POOL_COLUMNS, y0 = blockIdx.y * POOL_ROWS<S>;
    const int step = 2 * POOL_STEP;
    fetch<E>(c1, args.c1, x0 * step, y0 * step, C1_COLUMNS, 2 * ROWS + 1, args.width, args.height);
    copy_async_wait();
    BARRIER();
    for (int row = threadIdx.x / 32; row < ROWS; row += WARPS) {
        float sums[1][E / 8][4];
        start(sums, args.bias);
        const half *const pixels[1] = {c1 + (2 * row * C1_COLUMNS + 2 * lane_pixel()) * STRIDE<E> + lane_offset()};
        convolve<3, E>(sums, pixels, C1_COLUMNS, args.conv2);
        put(conv + row * CONV2_COLUMNS * STRIDE<E>, sums[0]);
    }
    BARRIER();
    constexpr int PAIRS = E / 2;
    for (int i = threadIdx.x; i < POOL_ROWS<S> * POOL_COLUMNS * PAIRS; i += THREADS) {
        const int channel = i % PAIRS * 2, x = i / PAIRS % POOL_COLUMNS, y = i / PAIRS / POOL_COLUMNS;
        if (x0 + x >= args.width3 || y0 + y >= args.height3) {
            continue;
        }
        const half *from = conv + (y * POOL_STEP * CONV2_COLUMNS + x * POOL_STEP) * STRIDE<E> + channel;
        float2 largest = unpack(*(const u32 *)from);
        for (int k = 1; k < POOL_SIDE * POOL_SIDE; ++k) {
            const float2 v = unpack(*(const u32 *)(from + (k / POOL_SIDE * CONV2_COLUMNS + k % POOL_SIDE) * STRIDE<E>));
            largest.x = fmaxf(largest.x, v.x), largest.y = fmaxf(largest.y, v.y);
        }
        store((u32 *)(args.pooled + ((u64)(y0 + y) * args.width3 + x0 + x) * E + channel), pack(largest.x, largest.y));
    }
}

constexpr int GRID_COLUMNS = 16, GRID_ROWS = WARPS;

template <class S> DEVICE void grid(const Grid &args) {
    constexpr int E = S::E, WIDTH = GRID_COLUMNS + 2;
    half *tile = (half *)shared_memory();
    const int x0 = blockIdx.x * GRID_COLUMNS, y0 = blockIdx.y * GRID_ROWS, row = threadIdx.x / 32;
    fetch<E>(tile, args.pooled, x0 - 1, y0 - 1, WIDTH, GRID_ROWS + 2, args.width, args.height);
    copy_async_wait();
    BARRIER();
    float sums[1][E / 8][4];
    start(sums, args.bias);
    const half *const pixels[1] = {tile + (row * WIDTH + lane_pixel()) * STRIDE<E> + lane_offset()};
    convolve<3, E>(sums, pixels, WIDTH, args.conv3);
    BARRIER();
    put(tile + row * GRID_COLUMNS * STRIDE<E>, sums[0]);
    BARRIER();
    give<E>(args.grid, tile, x0, y0, GRID_COLUMNS, GRID_ROWS, args.width, args.height);
}

NETWORK_KERNEL(squeeze, Squeeze)
NETWORK_KERNEL(grid, Grid)
