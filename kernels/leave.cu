// The end of the network: the last convs, the long skip connection and the pixel shuffle. `first_step`: conv_2 alone,
// where two steps are less work than one 5x5.
//
// trunk: [H, W, C] f16, scale: [C] f32, x: [in, H, W] f32 -> out: [in, s·H, s·W] f32.
// `leave` is a 5x5 or 3x3 conv of the scaled trunk and, in f32, a 5x5 conv of x. Pixels at the border have their own
// weights (nine places), because the inner conv is padded with zeros.
// Grid: (W / 16, H / ROWS); 16 x ROWS pixels per thread block.
// Shared memory: the tile of the trunk and of x with a margin of 2 pixels, 47 KB at C = 56.
// Bound: `leave` for luma x2: tensor cores, half of whose outputs are padding, 400 · C FLOP per pixel for 2 · C + 20
// bytes.
// Counted (make cuda-budget): 0.28 GB, 0.12 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: hasn_kernels::leave::leave, engine::cpu::tail
#include "dense.cuh"

struct FirstStep {
    const half *trunk;
    const float *scale;
    const uint2 *weights;
    const float *bias;
    half *out;
    int width, height;
};

struct Leave {
    const half *trunk;
    const float *scale;
    const float *x;
    float *out;
    const uint2 *weights;     // [outputs / 8] convs to eight outputs
    const float *by_place;    // [9, side, side, C, outputs]
    const float *skip;        // [9, in, 5, 5, outputs]
    const float *bias;        // [9, outputs]
    int side;                 // 5 or 3
    int in_channels, outputs; // A multiple of 8.
    int phases;               // s²
    int upscale;              // s
    int width, height;
};

constexpr int LEAVE_COLUMNS = 16, LEAVE_MARGIN = 2, LEAVE_WIDTH = LEAVE_COLUMNS + 2 * LEAVE_MARGIN;

// Multiplies the tile's pixels by the channel attention of the last HASN block.
template <class S> DEVICE void scale_tile(half *tile, const float *scale) {
    constexpr int PAIRS = S::C / 2;
    for (int i = threadIdx.x; i < LEAVE_WIDTH * (S::ROWS + 2 * LEAVE_MARGIN) * PAIRS; i += THREADS) {
        u32 *pair = (u32 *)(tile + i / PAIRS * STRIDE<S::C> + i % PAIRS * 2);
        const float2 v = unpack(*pair), a = load((const float2 *)(scale + i % PAIRS * 2));
        *pair = pack(v.x * a.x, v.y * a.y);
    }
}

template <class S> DEVICE void first_step(const FirstStep &args) {
    constexpr int C = S::C, TILES = S::ROWS / WARPS;
    half *tile = (half *)shared_memory();
    const int x0 = blockIdx.x * LEAVE_COLUMNS, y0 = blockIdx.y * S::ROWS, warp = threadIdx.x / 32;
    fetch<C>(tile, args.trunk, x0 - LEAVE_MARGIN, y0 - LEAVE_MARGIN, LEAVE_WIDTH, S::ROWS + 2 * LEAVE_MARGIN, args.width, args.height);
    copy_async_wait();
    BARRIER();
    scale_tile<S>(tile, args.scale);
    BARRIER();
    float sums[TILES][C / 8][4];
    start(sums, args.bias);
    const half *rows[TILES];
    for (int i = 0; i < TILES; ++i) {
        rows[i] = tile + ((warp * TILES + i + 1) * LEAVE_WIDTH + 1 + lane_pixel()) * STRIDE<C> + lane_offset();
    }
    convolve<3, C>(sums, rows, LEAVE_WIDTH, args.weights);
    BARRIER();
    for (int i = 0; i < TILES; ++i) {
        put(tile + (warp * TILES + i) * LEAVE_COLUMNS * STRIDE<C>, sums[i]);
    }
    BARRIER();
    give<C>(args.out, tile, x0, y0, LEAVE_COLUMNS, S::ROWS, args.width, args.height);
}

// Place on an axis. 0: first position, 1: inner, 2: last.
DEVICE int place(int position, int len) { return position == 0 ? 0 : position == len - 1 ? 2 : 1; }

// The contribution of x to `output` of a pixel, plus its bias.
template <class S> DEVICE float skipped(const Leave &args, const float *x, int column, int row, int at, int output) {
    float sum = load(args.bias + at * args.outputs + output);
    for (int input = 0; input < args.in_channels; ++input) {
        const float *plane = x + input * LEAVE_WIDTH * (S::ROWS + 2 * LEAVE_MARGIN);
        const float *weights = args.skip + (at * args.in_channels + input) * 25 * args.outputs + output;
        for (int tap = 0; tap < 25; ++tap) {
            sum += load(weights + tap * args.outputs) * plane[(row + tap / 5) * LEAVE_WIDTH + column + tap % 5];
        }
    }
    return sum;
}

DEVICE void shuffle_out(const Leave &args, int x, int y, int output, float value) {
    const int component = output / args.phases, phase = output % args.phases;
    if (component < args.in_channels) {
        const u64 row = ((u64)component * args.height + y) * args.upscale + phase / args.upscale;
        store(args.out + (row * args.width + x) * args.upscale + phase % args.upscale, value);
    }
}

template <class S> DEVICE void leave(const Leave &args) {
    constexpr int C = S::C, TILES = S::ROWS / WARPS, HEIGHT = S::ROWS + 2 * LEAVE_MARGIN;
    half *tile = (half *)shared_memory();
    float *picture = (float *)(tile + LEAVE_WIDTH * HEIGHT * STRIDE<C>);
    const int x0 = blockIdx.x * LEAVE_COLUMNS, y0 = blockIdx.y * S::ROWS, warp = threadIdx.x / 32;
    fetch<C>(tile, args.trunk, x0 - LEAVE_MARGIN, y0 - LEAVE_MARGIN, LEAVE_WIDTH, HEIGHT, args.width, args.height);
    for (int i = threadIdx.x; i < args.in_channels * HEIGHT * LEAVE_WIDTH; i += THREADS) {
        const int x = x0 - LEAVE_MARGIN + i % LEAVE_WIDTH, y = y0 - LEAVE_MARGIN + i / LEAVE_WIDTH % HEIGHT;
        const bool inside = x >= 0 && x < args.width && y >= 0 && y < args.height;
        const u64 plane = (u64)(i / LEAVE_WIDTH / HEIGHT) * args.height;
        picture[i] = inside ? load(args.x + (plane + y) * args.width + x) : 0.0f;
    }
    copy_async_wait();
    BARRIER();
    scale_tile<S>(tile, args.scale);
    BARRIER();

    const int margin = LEAVE_MARGIN - args.side / 2, taps = args.side * args.side;
    const half *rows[TILES];
    for (int i = 0; i < TILES; ++i) {
        rows[i] = tile + ((warp * TILES + i + margin) * LEAVE_WIDTH + margin + lane_pixel()) * STRIDE<C> + lane_offset();
    }
    for (int first = 0; first < args.outputs; first += 8) {
        float sums[TILES][1][4] = {};
        const uint2 *weights = args.weights + first / 8 * taps * STEPS<C> * 32;
        if (args.side == 5) {
            convolve<5, C>(sums, rows, LEAVE_WIDTH, weights);
        } else {
            convolve<3, C>(sums, rows, LEAVE_WIDTH, weights);
        }
        for_each(sums, [&](int i, int, int k) {
            const int column = lane_row() + k / 2 * 8, row = warp * TILES + i, x = x0 + column, y = y0 + row;
            const int output = first + lane_column() + k % 2;
            const bool between = x > 0 && x < args.width - 1 && y > 0 && y < args.height - 1;
            if (between && output < args.in_channels * args.phases) {
                shuffle_out(args, x, y, output, sums[i][0][k] + skipped<S>(args, picture, column, row, 4, output));
            }
        });
    }

    // The pixels at the border, one at a time in f32.
    const bool at_border = x0 == 0 || y0 == 0 || x0 + LEAVE_COLUMNS >= args.width || y0 + S::ROWS >= args.height;
    for (int i = threadIdx.x; at_border && i < LEAVE_COLUMNS * S::ROWS * args.outputs; i += THREADS) {
        const int output = i % args.outputs, column = i / args.outputs % LEAVE_COLUMNS, row = i / args.outputs / LEAVE_COLUMNS;
        const int x = x0 + column, y = y0 + row;
        const int at = 3 * place(y, args.height) + place(x, args.width);
        if (at == 4 || x >= args.width || y >= args.height || output >= args.in_channels * args.phases) {
            continue;
        }
        float sum = skipped<S>(args, picture, column, row, at, output);
        const float *weights = args.by_place + (u64)at * taps * C * args.outputs + output;
        for (int tap = 0; tap < taps; ++tap) {
            const int pixel = (row + margin + tap / args.side) * LEAVE_WIDTH + column + margin + tap % args.side;
            for (int c = 0; c < C; c += 2) {
                const float2 v = unpack(*(const u32 *)(tile + pixel * STRIDE<C> + c));
                const float *pair = weights + (u64)(tap * C + c) * args.outputs;
                sum += load(pair) * v.x + load(pair + args.outputs) * v.y;
            }
        }
        shuffle_out(args, x, y, output, sum);
    }
}

NETWORK_KERNEL(first_step, FirstStep)
NETWORK_KERNEL(leave, Leave)
