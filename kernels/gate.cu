// The middle of a HASN block, all 1x1: gate, spatial attention and g. Tensors of M channels stay in registers.
//
// n: [H·W, C] f16, in place: g(relu6(f1(n)) · f2(n) + f3(n) · sigmoid(conv4(conv_f(n) + grid))), where grid: [H3, W3, E]
// f16 is interpolated to H x W with half-pixel centres, clamped at the edges.
// Grid: (H·W / 256); 256 consecutive pixels per thread block, 32 per warp.
// Shared memory: the thread block's pixels, 28 KB at C = 56.
// Bound: tensor cores, 2 · (4 · C · M + E · M + C · E) FLOP per pixel for 4 · C bytes. Sums are held in the layout of
// operands, so that the sums of one convolution are the operand of the next without a move.
// Counted (make cuda-budget): 2.81 GB, 2.45 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: hasn_kernels::gate::gate
#include "dense.cuh"

struct Gate {
    half *n;
    const half *grid;
    // f1, f2, f3 and conv4 are split into chunks of 16 outputs: [M / 16] times the layout of `multiply`; g into chunks of
    // 16 inputs.
    const uint2 *conv_f, *f1, *f2, *f3, *conv4, *g;
    const float *conv_f_bias, *f1_bias, *f2_bias, *f3_bias, *conv4_bias, *g_bias;
    int width, height;   // Size of n.
    int width3, height3; // Size of the grid.
};

constexpr int GATE_PIXELS = 256, GATE_TILES = GATE_PIXELS / WARPS / 16;

// Maps a position on an axis of length `to` to one of length `from`: returns the lower index and the fraction.
DEVICE int between(int position, int from, int to, float &fraction) {
    const float exact = fminf(fmaxf(((float)position + 0.5f) * ((float)from / (float)to) - 0.5f, 0.0f), (float)(from - 1));
    const int low = (int)exact;
    fraction = exact - (float)low;
    return low;
}

// Adds the grid at a pixel, interpolated, to the lane's two channels of each group of eight.
template <int N> DEVICE void add_grid(float (&sums)[N][4], int part, const Gate &args, u64 pixel) {
    float across, down;
    const int x = between((int)(pixel % args.width), args.width3, args.width, across);
    const int y = between((int)(pixel / args.width), args.height3, args.height, down);
    const int right = min(x + 1, args.width3 - 1) - x, below = (min(y + 1, args.height3 - 1) - y) * args.width3;
    const half *corner = args.grid + ((u64)y * args.width3 + x) * (N * 8) + lane_column();
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const half *at = corner + n * 8;
        const float2 a = unpack(load((const u32 *)at)), b = unpack(load((const u32 *)(at + right * N * 8)));
        const float2 c = unpack(load((const u32 *)(at + below * N * 8)));
        const float2 d = unpack(load((const u32 *)(at + (below + right) * N * 8)));
        const float2 upper = make_float2(a.x + across * (b.x - a.x), a.y + across * (b.y - a.y));
        const float2 lower = make_float2(c.x + across * (d.x - c.x), c.y + across * (d.y - c.y));
        sums[n][2 * part] += upper.x + down * (lower.x - upper.x);
        sums[n][2 * part + 1] += upper.y + down * (lower.y - upper.y);
    }
}

// Converts the sums of 16 outputs to the operand of a step of 16 inputs.
DEVICE void as_operand(u32 (&operand)[4], const float (&sums)[2][4]) {
    operand[0] = pack(sums[0][0], sums[0][1]), operand[1] = pack(sums[0][2], sums[0][3]);
    operand[2] = pack(sums[1][0], sums[1][1]), operand[3] = pack(sums[1][2], sums[1][3]);
}

template <class S> DEVICE void gate(const Gate &args) {
    constexpr int C = S::C, E = S::E, TILES = GATE_TILES;
    // Groups of eight outputs per chunk.
    constexpr int OUTPUTS = 2;
    half *tile = (half *)shared_memory();
    const u64 pixels = (u64)args.width * args.height, first = (u64)blockIdx.x * GATE_PIXELS;
    // `fetch` sees the pixels as a map of one row, so that pixels past the last one are zero.
    const int rest = (int)min(pixels - first, (u64)GATE_PIXELS);
    fetch<C>(tile, args.n + first * C, 0, 0, GATE_PIXELS, 1, rest, 1);
    copy_async_wait();
    BARRIER();

    const int own = threadIdx.x / 32 * TILES * 16;
    const half *rows[TILES];
    for (int i = 0; i < TILES; ++i) {
        rows[i] = tile + (own + i * 16 + lane_pixel()) * STRIDE<C> + lane_offset();
    }
    u32 attention[TILES][(E + 15) / 16][4];
    {
        float sums[TILES][E / 8][4];
        start(sums, args.conv_f_bias);
        multiply<C>(sums, rows, args.conv_f);
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int part = 0; part < 2; ++part) {
                add_grid(sums[i], part, args, min(first + own + i * 16 + lane_row() + 8 * part, pixels - 1));
            }
#pragma unroll
            for (int n = 0; n < E / 8; ++n) {
                attention[i][n / 2][n % 2 * 2] = pack(sums[i][n][0], sums[i][n][1]);
                attention[i][n / 2][n % 2 * 2 + 1] = pack(sums[i][n][2], sums[i][n][3]);
            }
        }
    }

    float out[TILES][C / 8][4];
    start(out, args.g_bias);
#pragma unroll 1
    for (int chunk = 0; chunk < S::M / 16; ++chunk) {
        constexpr int FROM_C = STEPS<C> * OUTPUTS * 32, FROM_E = STEPS<E> * OUTPUTS * 32;
        float gated[TILES][OUTPUTS][4], other[TILES][OUTPUTS][4];
        start(gated, args.f1_bias + chunk * 16);
        multiply<C>(gated, rows, args.f1 + chunk * FROM_C);
        start(other, args.f2_bias + chunk * 16);
        multiply<C>(other, rows, args.f2 + chunk * FROM_C);
        for_each(gated, [&](int i, int n, int k) { gated[i][n][k] = fminf(fmaxf(gated[i][n][k], 0.0f), 6.0f) * other[i][n][k]; });
        // The weights of conv4 are scaled so that the sigmoid is 1 / (1 + 2^t).
        start(other, args.conv4_bias + chunk * 16);
        const uint2 *conv4 = args.conv4 + chunk * FROM_E + threadIdx.x % 32;
#pragma unroll
        for (int n = 0; n < OUTPUTS; ++n) {
#pragma unroll
            for (int step = 0; step < STEPS<E>; ++step) {
                const uint2 w = load(conv4 + (step * OUTPUTS + n) * 32);
#pragma unroll
                for (int i = 0; i < TILES; ++i) {
                    if (step * 16 + 8 == E) {
                        multiply_add(other[i][n], attention[i][step][0], attention[i][step][1], w.x);
                    } else {
                        multiply_add(other[i][n], attention[i][step], w.x, w.y);
                    }
                }
            }
        }
        float weighted[TILES][OUTPUTS][4];
        start(weighted, args.f3_bias + chunk * 16);
        multiply<C>(weighted, rows, args.f3 + chunk * FROM_C);
        for_each(gated, [&](int i, int n, int k) { gated[i][n][k] += weighted[i][n][k] * reciprocal(1.0f + exp2(other[i][n][k])); });
        const uint2 *g = args.g + chunk * (C / 8) * 32 + threadIdx.x % 32;
        u32 operand[TILES][4];
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            as_operand(operand[i], gated[i]);
        }
#pragma unroll
        for (int n = 0; n < C / 8; ++n) {
            const uint2 w = load(g + n * 32);
#pragma unroll
            for (int i = 0; i < TILES; ++i) {
                multiply_add(out[i][n], operand[i], w.x, w.y);
            }
        }
    }

    BARRIER();
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
        put(tile + (own + i * 16) * STRIDE<C>, out[i]);
    }
    BARRIER();
    give<C>(args.n + first * C, tile, 0, 0, GATE_PIXELS, 1, rest, 1);
}

NETWORK_KERNEL(gate, Gate)
