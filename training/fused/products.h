// Products of matrices, the bulk of a training step: maps of channels at every pixel (1x1 and 3x3 convolutions), and sums over
// pixels (the gradients of their weights).
//
//   Map   out[n][p] = bias[n] + sum over k, t of weight[n][k][t] * in[k][p + shift[t]]
//   Sum   sum[t][r][c] += sum over p of rows[r][p + shift[t]] * columns[c][p]
//
// Pixels are the lanes of a Map: O outputs of V vectors stay in registers, each step takes V loads and O broadcasts for O * V
// products, and no number of channels wastes lanes. A Sum takes its columns transposed, [p][c]: the columns are the lanes, so that
// no register is summed over its lanes, and a shift moves a broadcast and never a vector.
//
// A format says what a product is. Float: f32. Pair: two bf16 in 32 bits, summed in f32 by VDPBF16PS, so that a step is two
// channels of a Map or two pixels of a Sum. Planes are [channel][pixel] in both; a unit is the 32 bits of a lane.
//
// Bound: the multiply-add units. Zen 4 does 16 f32 or 32 bf16 multiply-adds a cycle, twice as many as its loads would feed from the
// cache without the blocking by O and V.
#pragma once
#include <algorithm>
#include <type_traits>

#include "vec.h"

constexpr int up(int n, int to) { return (n + to - 1) / to * to; }
constexpr int least(int a, int b) { return a < b ? a : b; }

// Calls f(size, start) for nearly equal parts of N, none above MOST; size is a constant.
template <int N, int MOST, class F>
INLINE void parts(F f) {
    constexpr int COUNT = (N + MOST - 1) / MOST, SMALL = N / COUNT, LARGER = N % COUNT;
    if constexpr (LARGER > 0) for (int i = 0; i < LARGER; i++) f(std::integral_constant<int, SMALL + 1>(), i * (SMALL + 1));
    for (int i = LARGER; i < COUNT; i++) f(std::integral_constant<int, SMALL>(), i * SMALL + LARGER);
}

// Planes of pixels, `stride` apart.
template <class T>
struct Planes {
    T* at;
    long stride;
    T* of(int c) const { return at + c * stride; }
    Planes from(long pixel) const { return {at + pixel, stride}; }
};

struct Float {
    typedef float Element;
    static constexpr int EACH = 1;
    static constexpr bool ROWS_ARE_INPUTS = true;
    static INLINE Vec product(Vec a, Vec b, Vec sum) { return fma(a, b, sum); }
    static INLINE Vec broadcast(const float* p) { return set(*p); }
    static void put(float* unit, float first, float) { *unit = first; }
    // Whether the system lets this process use the format; before and after its use in a thread.
    static bool possible() { return true; }
    static void begin() {}
    static void end() {}

    // Channels c (even) and c + 1 at LANES pixels, as inputs of a Map and as rows of a Sum.
    static INLINE void put_inputs(float* units, long stride, int c, Vec a, Vec b) { store(units + c * stride, a), store(units + (c + 1) * stride, b); }
    static INLINE void put_rows(float* rows, long stride, int c, Vec a, Vec b) { put_inputs(rows, stride, c, a, b); }
    // What a Map reads of planes, and what a Sum reads as rows: the planes themselves; a Pair uses the scratch.
    static Planes<float> inputs(Planes<float> planes, int, long, Planes<float>) { return planes; }
    static Planes<float> rows(Planes<float> planes, int, long, Planes<float>) { return planes; }
    // Each pixel with its right neighbour, for a Pair; LANES * EACH pixels of rows, of which the first n count.
    static const float* neighbours(const float* plane, long, float*) { return plane; }
    static INLINE Vec load_pixels(const float* p) { return load(p); }
    static INLINE Vec load_first_pixels(const float* p, int n) { return load_first(p, n); }
    // What a Sum reads as columns: [pixel][up(channels, LANES)].
    static const float* columns(Planes<float> planes, int channels, int pixels, float* out) {
        const int width = up(channels, LANES);
        for (int c = 0; c < width; c += LANES) for (int p = 0; p < pixels; p += LANES) {
            Vec block[LANES];
            UNROLL for (int i = 0; i < LANES; i++) block[i] = c + i < channels ? load(planes.of(c + i) + p) : set(0);
            transpose(block);
            UNROLL for (int i = 0; i < LANES; i++) store(out + (p + i) * width + c, block[i]);
        }
        return out;
    }
};

// O outputs. weight: [tap][unit][O].
template <class Format, int O, int TAPS, bool ADD>
void map_outputs(const float* in, long in_stride, int units, const long* shift, const float* weight, const float* bias, float* out,
                 long out_stride, int pixels) {
    constexpr int V = 2;
    for (int p = 0; p < pixels; p += V * LANES) {
        Vec sum[O][V];
        UNROLL for (int o = 0; o < O; o++) UNROLL for (int v = 0; v < V; v++)
            sum[o][v] = ADD ? load(out + o * out_stride + p + v * LANES) : set(bias[o]);
        const float* w = weight;
        for (int t = 0; t < TAPS; t++) {
            const float* x = in + p + (TAPS > 1 ? shift[t] : 0);
            for (int k = 0; k < units; k++, x += in_stride, w += O) {
                Vec a[V];
                UNROLL for (int v = 0; v < V; v++) a[v] = load(x + v * LANES);
                UNROLL for (int o = 0; o < O; o++) {
                    Vec b = set(w[o]);
                    UNROLL for (int v = 0; v < V; v++) sum[o][v] = Format::product(a[v], b, sum[o][v]);
                }
            }
        }
        UNROLL for (int o = 0; o < O; o++) UNROLL for (int v = 0; v < V; v++) store(out + o * out_stride + p + v * LANES, sum[o][v]);
    }
}

template <class Format, int N, int K, int TAPS = 1>
struct Map {
    static constexpr int MOST = REGISTERS == 32 ? 13 : 6, UNITS = (K + Format::EACH - 1) / Format::EACH;
    alignas(64) float weight[TAPS * UNITS * N], bias[N];

    // weight_of(n, k, t); biases null: 0
    template <class F>
    void set(F weight_of, const float* biases = nullptr) {
        float* w = weight;
        parts<N, MOST>([&](auto size, int start) {
            for (int t = 0; t < TAPS; t++) for (int k = 0; k < K; k += Format::EACH) for (int n = start; n < start + size; n++)
                Format::put(w++, weight_of(n, k, t), k + 1 < K ? weight_of(n, k + 1, t) : 0.f);
        });
        for (int n = 0; n < N; n++) bias[n] = biases ? biases[n] : 0;
    }
    // in: of Format::inputs. pixels: a multiple of two vectors. With ADD to what is in out, without biases.
    template <bool ADD = false>
    void apply(Planes<float> in, const long* shift, Planes<float> out, int pixels) const {
        parts<N, MOST>([&](auto size, int start) {
            map_outputs<Format, size, TAPS, ADD>(in.at, in.stride, UNITS, shift, weight + start * TAPS * UNITS, bias + start,
                                                 out.of(start), out.stride, pixels);
        });
    }
};

// O rows, D taps beside each other in a row of pixels (SIGN tells the direction), V vectors of columns.
template <class Format, int O, int D, int SIGN, int V>
void sum_rows(const typename Format::Element* rows, long row_stride, const float* columns, long width, int pixels, float* sum,
              long tap_stride) {
    Vec s[O][D][V];
    UNROLL for (int o = 0; o < O; o++) UNROLL for (int d = 0; d < D; d++) UNROLL for (int v = 0; v < V; v++)
        s[o][d][v] = load(sum + d * tap_stride + o * width + v * LANES);
    for (int p = 0; p < pixels; p += Format::EACH, columns += width) {
        Vec c[V];
        UNROLL for (int v = 0; v < V; v++) c[v] = load(columns + v * LANES);
        UNROLL for (int o = 0; o < O; o++) UNROLL for (int d = 0; d < D; d++) {
            Vec r = Format::broadcast(rows + o * row_stride + p + SIGN * d);
            UNROLL for (int v = 0; v < V; v++) s[o][d][v] = Format::product(c[v], r, s[o][d][v]);
        }
    }
    UNROLL for (int o = 0; o < O; o++) UNROLL for (int d = 0; d < D; d++) UNROLL for (int v = 0; v < V; v++)
        store(sum + d * tap_stride + o * width + v * LANES, s[o][d][v]);
}

template <class Format, int ROWS, int COLUMNS, int TAPS = 1>
struct Sum {
    static constexpr int WIDTH = up(COLUMNS, LANES);
    alignas(64) float sum[TAPS][ROWS][WIDTH];

    // SIGN 1: shift[t] is (t / 3 - 1) rows + t % 3 - 1; SIGN -1: the negative of it.
    template <int SIGN = 1>
    void add(Planes<typename Format::Element> rows, const long* shift, const float* columns, int pixels) {
        constexpr int REGS = REGISTERS == 32 ? 24 : 12;
        parts<WIDTH / LANES, 4>([&](auto vectors, int v) {
            constexpr int D = TAPS == 9 && vectors <= 2 ? 3 : 1;
            parts<ROWS, least(8, REGS / (D * vectors))>([&](auto size, int r) {
                for (int t = 0; t < TAPS; t += D)
                    sum_rows<Format, size, D, SIGN, vectors>(rows.of(r) + (TAPS > 1 ? shift[t] : 0), rows.stride, columns + v * LANES, WIDTH, pixels, &sum[t][r][v * LANES], ROWS * WIDTH);
            });
        });
    }
};
