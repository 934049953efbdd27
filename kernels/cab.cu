// The end of a HASN block. `cab`: the second depthwise 7x7 conv with its skip connection, two 3x3 convs with GELU between
// them, and sums of the result over the frame. `reduce` and `attention`: the channel attention's scale of each channel,
// from these sums.
//
// gated, trunk: [H, W, C] f16, scale: [C] f32 -> u = scale · trunk + bias + dw(gated), which stays in shared memory, and
// z: [H, W, C] f16, sums: [thread blocks, C] f32 -> the next scale: [C] f32
// Grid: `cab`: (W / 16, H / ROWS), 16 x ROWS pixels per thread block; `reduce`: 256 rows of sums per thread block, one
// channel per thread; `attention`: one thread block.
// Shared memory: `cab`: u with a margin of 2 pixels; eight channels of gated at a time with a margin of 5, later replaced
// by R channels with a margin of 1. 61 KB at C = 56.
// Bound: tensor cores, 36 · C · R FLOP per pixel (1.3 times as much with the first conv's margin), and about as long f32,
// 98 · C FLOP per pixel (1.6 times as much with u's margin), with 6 · C bytes read and written.
// Counted (make cuda-budget): 4.20 GB, 2.63 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: hasn_kernels::depthwise::add_skip; hasn_kernels::dense, stages cab0 and cab2; engine::cpu::net, channel attention
#include "depthwise.cuh"
#include "dense.cuh"

struct Cab {
    const half *gated;
    const half *trunk;
    const float *scale;
    const float *taps;    // [7, 7, C]
    const float *dw_bias; // [C]
    half *z;
    const uint2 *conv0, *conv2;
    const float *conv0_bias, *conv2_bias;
    float *sums;
    int width, height;
};

struct Reduce {
    const float *sums; // [rows, channels]
    float *out;        // [rows / 256, channels]
    int rows, channels;
};

struct Attention {
    const float *sums; // [rows, channels]
    float *scale;      // [channels]
    const float *weights1, *bias1; // [hidden, channels]
    const float *weights3, *bias3; // [channels, hidden]
    int rows, channels, hidden;
    float per_pixel; // 1 / (H·W)
};

// GELU: x · Φ(x), with erfc by Abramowitz and Stegun 7.1.26.
DEVICE float gelu(float x) {
    const float size = fabsf(x);
    const float t = reciprocal(1.0f + 0.3275911f * 0.70710678f * size);
    const float p = t * (0.25482959f + t * (-0.28449674f + t * (1.4214137f + t * (-1.453152f + t * 1.0614054f))));
    const float erfc = p * exp2(-0.5f * 1.44269504f * x * x);
    return fmaxf(x, 0.0f) - 0.5f * size * erfc;
}

constexpr int CAB_COLUMNS = 16, CAB_WIDTH = CAB_COLUMNS + 4;

// Computes u of the tile with a margin of 2 pixels, zero outside the frame. `gated`: space for eight channels of its window.
template <class S> DEVICE void add_skip(half *u, half *gated, const Cab &args, int x0, int y0) {
    constexpr int C = S::C, HEIGHT = S::ROWS + 4, WINDOW = CAB_WIDTH + 6, EIGHT = 8;
    // Strips per row. Four threads compute a strip, one pair of channels each.
    constexpr int STRIPS = THREADS / 4 / HEIGHT, STRIP = (CAB_WIDTH + STRIPS - 1) / STRIPS;
    fetch<C>(u, args.trunk, x0 - 2, y0 - 2, CAB_WIDTH, HEIGHT, args.width, args.height);
    const int strip = threadIdx.x / 4, y = strip / STRIPS, x = strip % STRIPS * STRIP;
#pragma unroll 1
    for (int first = 0; first < C; first += EIGHT) {
        for (int i = threadIdx.x; i < WINDOW * (HEIGHT + 6); i += THREADS) {
            const int from_x = x0 - 5 + i % WINDOW, from_y = y0 - 5 + i / WINDOW;
            const bool inside = from_x >= 0 && from_x < args.width && from_y >= 0 && from_y < args.height;
            const u64 pixel = inside ? (u64)from_y * args.width + from_x : 0;
            copy_async(gated + i * EIGHT, args.gated + pixel * C + first, inside);
        }
        copy_async_wait();
        BARRIER();
        if (y < HEIGHT) {
            const int pair = threadIdx.x % 4 * 2, channel = first + pair;
            const float2 scale = load((const float2 *)(args.scale + channel));
            const float2 bias = load((const float2 *)(args.dw_bias + channel));
            float2 sums[STRIP] = {};
            slide<C, WINDOW, EIGHT>(sums, gated + (y * WINDOW + x) * EIGHT + pair, args.taps + channel);
#pragma unroll
            for (int i = 0; i < STRIP; ++i) {
                const int to_x = x0 - 2 + x + i, to_y = y0 - 2 + y;
                if (x + i < CAB_WIDTH && to_x >= 0 && to_x < args.width && to_y >= 0 && to_y < args.height) {
                    u32 *at = (u32 *)(u + (y * CAB_WIDTH + x + i) * STRIDE<C> + channel);
                    const float2 skip = unpack(*at);
                    *at = pack(sums[i].x + bias.x + scale.x * skip.x, sums[i].y + bias.y + scale.y * skip.y);
                }
            }
        }
        BARRIER();
    }
}

template <class S> DEVICE void cab(const Cab &args) {
    constexpr int C = S::C, R = S::R, ROWS = S::ROWS, WIDTH = CAB_WIDTH;
    constexpr int INNER_WIDTH = CAB_COLUMNS + 2, INNER = INNER_WIDTH * (ROWS + 2);
    // Tiles of 16 pixels per warp.
    constexpr int INNER_TILES = ((INNER + 15) / 16 + WARPS - 1) / WARPS, TILES = ROWS / WARPS;
    half *tile = (half *)shared_memory();
    half *inner = tile + WIDTH * (ROWS + 4) * STRIDE<C>;
    const int x0 = blockIdx.x * CAB_COLUMNS, y0 = blockIdx.y * ROWS, warp = threadIdx.x / 32;
    add_skip<S>(tile, inner, args, x0, y0);
    {
        float sums[INNER_TILES][R / 8][4];
        start(sums, args.conv0_bias);
        const int own = warp * INNER_TILES * 16;
        const half *rows[INNER_TILES];
        for (int i = 0; i < INNER_TILES; ++i) {
            const int pixel = min(own + i * 16 + lane_pixel(), INNER - 1);
            rows[i] = tile + (pixel / INNER_WIDTH * WIDTH + pixel % INNER_WIDTH) * STRIDE<C> + lane_offset();
        }
        convolve<3, C>(sums, rows, WIDTH, args.conv0);
        for_each(sums, [&](int i, int n, int k) {
            const int pixel = own + i * 16 + lane_row() + k / 2 * 8;
            const int x = x0 - 1 + pixel % INNER_WIDTH, y = y0 - 1 + pixel / INNER_WIDTH;
            // The next conv pads with zeros, not with values of this conv outside the frame.
            const bool inside = x >= 0 && x < args.width && y >= 0 && y < args.height;
            sums[i][n][k] = inside ? gelu(sums[i][n][k]) : 0.0f;
        });
        for (int i = 0; i < INNER_TILES; ++i) {
            if (own + i * 16 < INNER) {
                put(inner + (own + i * 16) * STRIDE<R>, sums[i]);
            }
        }
    }
    BARRIER();
    float sums[TILES][C / 8][4];
    start(sums, args.conv2_bias);
    const half *rows[TILES];
    for (int i = 0; i < TILES; ++i) {
        rows[i] = inner + ((warp * TILES + i) * INNER_WIDTH + lane_pixel()) * STRIDE<R> + lane_offset();
    }
    convolve<3, R>(sums, rows, INNER_WIDTH, args.conv2);
    BARRIER();
    for (int i = 0; i < TILES; ++i) {
        put(tile + (warp * TILES + i) * CAB_COLUMNS * STRIDE<C>, sums[i]);
    }
    // Sums of each warp over its pixels inside the frame: [WARPS, C].
    float *of_warps = (float *)inner;
#pragma unroll
    for (int n = 0; n < C / 8; ++n) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < TILES; ++i) {
                const bool inside = y0 + warp * TILES + i < args.height;
                sum += inside && x0 + lane_row() < args.width ? sums[i][n][odd] : 0.0f;
                sum += inside && x0 + lane_row() + 8 < args.width ? sums[i][n][2 + odd] : 0.0f;
            }
            sum += shuffle_xor(sum, 4);
            sum += shuffle_xor(sum, 8);
            sum += shuffle_xor(sum, 16);
            if (lane_row() == 0) {
                of_warps[warp * C + n * 8 + lane_column() + odd] = sum;
            }
        }
    }
    BARRIER();
    give<C>(args.z, tile, x0, y0, CAB_COLUMNS, ROWS, args.width, args.height);
    if (threadIdx.x < C) {
        float sum = 0.0f;
        for (int i = 0; i < WARPS; ++i) {
            sum += of_warps[i * C + threadIdx.x];
        }
        store(args.sums + ((u64)blockIdx.y * gridDim.x + blockIdx.x) * C + threadIdx.x, sum);
    }
}

// Adds in a fixed order, so that the result is deterministic.
DEVICE void reduce_rows(const Reduce &args) {
    const int channel = threadIdx.x, first = blockIdx.x * 256;
    if (channel >= args.channels) {
        return;
    }
    float sum = 0.0f;
    for (int row = first; row < min(first + 256, args.rows); ++row) {
        sum += load(args.sums + (u64)row * args.channels + channel);
    }
    store(args.out + (u64)blockIdx.x * args.channels + channel, sum);
}

DEVICE void attention_scale(const Attention &args) {
    float *mean = (float *)shared_memory(), *hidden = mean + args.channels;
    const int i = threadIdx.x;
    if (i < args.channels) {
        float sum = 0.0f;
        for (int row = 0; row < args.rows; ++row) {
            sum += load(args.sums + (u64)row * args.channels + i);
        }
        mean[i] = sum * args.per_pixel;
    }
    BARRIER();
    if (i < args.hidden) {
        float sum = load(args.bias1 + i);
        for (int c = 0; c < args.channels; ++c) {
            sum += load(args.weights1 + i * args.channels + c) * mean[c];
        }
        hidden[i] = fmaxf(sum, 0.0f);
    }
    BARRIER();
    if (i < args.channels) {
        float sum = load(args.bias3 + i);
        for (int h = 0; h < args.hidden; ++h) {
            sum += load(args.weights3 + i * args.hidden + h) * hidden[h];
        }
        store(args.scale + i, reciprocal(1.0f + exp2(-1.44269504f * sum)));
    }
}

NETWORK_KERNEL(cab, Cab)
KERNEL(reduce, Reduce, THREADS, reduce_rows(args))
KERNEL(attention, Attention, THREADS, attention_scale(args))
