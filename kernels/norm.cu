// The start of a HASN block: the depthwise 7x7 conv, the layer norm that follows it, and ESA's conv1.
//
// trunk: [H, W, C] f16, scale: channel attention of the previous HASN block, [C] f32 -> n: [H, W, C] f16 = LN(bias +
// scale · dw(trunk)) without LN's affine, c1: [H, W, E] f16 = conv1(n).
// Grid: (W / 16, H / 8), 16 x 8 pixels per thread block; two channels of a strip of pixels per thread, then half a pixel.
// Shared memory: the tile with a margin of 3 pixels, later the conv's result in f32 and n. 44 KB at C = 56.
// Bound: f32, 98 · C FLOP per pixel, with 4.2 · C bytes read and written.
// Counted (make cuda-budget): 3.19 GB, 1.51 ms of an H100 at best, for 1080p to 4K by 52 x 6; not measured on a GPU.
// Twin: hasn_kernels::depthwise::norm
#include "depthwise.cuh"
#include "dense.cuh"

constexpr int DW_COLUMNS = 16, DW_ROWS = 8, DW_PIXELS = DW_COLUMNS * DW_ROWS;
constexpr int DW_MARGIN = 3, DW_WIDTH = DW_COLUMNS + 2 * DW_MARGIN, DW_HEIGHT = DW_ROWS + 2 * DW_MARGIN;
static_assert(DW_COLUMNS == 16 && DW_ROWS == WARPS && DW_PIXELS * 2 == THREADS, "a warp takes a row, two threads a pixel");

// PyTorch's default.
constexpr float LAYER_NORM_EPS = 1e-5f;

struct Norm {
    const half *trunk;
    const float *scale;
    const float *taps; // [7, 7, C]
    const float *bias; // [C]
    const uint2 *conv1;
    const float *conv1_bias;
    half *n;
    half *c1;
    int width, height;
    int dim; // C without padding.
};

// Pixels per strip, such that every thread has a strip.
template <class S> constexpr int STRIP = S::C >= 56 ? 16 : S::C / 4;
template <class S> constexpr int STRIPS = DW_PIXELS / STRIP<S>;

template <class S> DEVICE void norm(const Norm &args) {
    constexpr int C = S::C, PAIRS = C / 2;
    // The pixels of the conv's result are C + 1 elements apart, so that they lie in different banks.
    constexpr int LINE = C + 1;
    half *tile = (half *)shared_memory();
    float *conv = (float *)shared_memory();
    half *n = (half *)(conv + DW_PIXELS * LINE);
    const int x0 = blockIdx.x * DW_COLUMNS, y0 = blockIdx.y * DW_ROWS;
    const int thread = threadIdx.x;

    fetch<C>(tile, args.trunk, x0 - DW_MARGIN, y0 - DW_MARGIN, DW_WIDTH, DW_HEIGHT, args.width, args.height);
    copy_async_wait();
    BARRIER();
    const int channel = thread % PAIRS * 2, strip = thread / PAIRS;
    const int x = strip * STRIP<S> % DW_COLUMNS, y = strip * STRIP<S> / DW_COLUMNS;
    float2 sums[STRIP<S>] = {};
    if (strip < STRIPS<S>) {
        slide<C, DW_WIDTH, STRIDE<C>>(sums, tile + (y * DW_WIDTH + x) * STRIDE<C> + channel, args.taps + channel);
    }
    BARRIER();
    if (strip < STRIPS<S>) {
        const float2 scale = load((const float2 *)(args.scale + channel)), bias = load((const float2 *)(args.bias + channel));
        float *line = conv + (y * DW_COLUMNS + x) * LINE + channel;
#pragma unroll
        for (int i = 0; i < STRIP<S>; ++i) {
            line[i * LINE] = sums[i].x * scale.x + bias.x;
            line[i * LINE + 1] = sums[i].y * scale.y + bias.y;
        }
    }
    BARRIER();

    // Two threads per pixel, with half of its channels each.
    const int pixel = thread / 2, first = thread % 2 * (C / 2), last = min(first + C / 2, args.dim);
    const float *line = conv + pixel * LINE;
    float sum = 0.0f;
    for (int c = first; c < last; ++c) {
        sum += line[c];
    }
    const float mean = (sum + shuffle_xor(sum, 1)) / (float)args.dim;
    float squares = 0.0f;
    for (int c = first; c < last; ++c) {
        squares += (line[c] - mean) * (line[c] - mean);
    }
    const float variance = (squares + shuffle_xor(squares, 1)) / (float)args.dim;
    const float factor = reciprocal_root(variance + LAYER_NORM_EPS);
    for (int c = first; c < first + C / 2; c += 2) {
        const float low = c < args.dim ? (line[c] - mean) * factor : 0.0f;
        const float high = c + 1 < args.dim ? (line[c + 1] - mean) * factor : 0.0f;
        *(u32 *)(n + pixel * STRIDE<C> + c) = pack(low, high);
    }
    BARRIER();

    give<C>(args.n, n, x0, y0, DW_COLUMNS, DW_ROWS, args.width, args.height);
    const int row = thread / 32;
    float squeezed[1][S::E / 8][4];
    start(squeezed, args.conv1_bias);
    const half *const pixels[1] = {n + (row * DW_COLUMNS + lane_pixel()) * STRIDE<C> + lane_offset()};
    multiply<C>(squeezed, pixels, args.conv1);
    for (int part = 0; part < 2; ++part) {
        const int to_x = x0 + lane_row() + 8 * part, to_y = y0 + row;
        if (to_x < args.width && to_y < args.height) {
            half *to = args.c1 + ((u64)to_y * args.width + to_x) * S::E + lane_column();
            for (int i = 0; i < S::E / 8; ++i) {
                store((u32 *)(to + i * 8), pack(squeezed[0][i][2 * part], squeezed[0][i][2 * part + 1]));
            }
        }
    }
}

NETWORK_KERNEL(norm, Norm)
