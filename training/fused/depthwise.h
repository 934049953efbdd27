// Depthwise 7x7 convolutions of one plane, and the gradients of their taps.
//
//   depthwise            out[y][x] = bias + plus[y][x] + sum of taps[dy][dx] * in[y + dy - 3][x + dx - 3]
//   depthwise_gradient   sum[dy][dx] += sum over y, x of g[y][x] * in[y + dy - 3][x + dx - 3], for each lane of x
//
// Both keep a block of rows in registers, so that a vector that was loaded serves up to seven products. Rows of pixels lie `pitch`
// apart, with zeros around them. Bound: the multiply-add units, 49 multiply-adds a pixel.
#pragma once
#include "products.h"

// R rows of V vectors; `last`: pixels of the last vector. in: 3 rows above, 3 pixels left of the first.
template <int R, int V>
INLINE void depthwise_block(const float* in, long pitch, const float* taps, float bias, const float* plus, float* out, int last) {
    Vec sum[R][V];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)
        sum[r][v] = plus ? set(bias) + load(plus + r * pitch + v * LANES) : set(bias);
    for (int dx = 0; dx < 7; dx++) {
        const float* p = in + dx;
        UNROLL for (int row = 0; row < R + 6; row++, p += pitch) {
            Vec x[V];
            UNROLL for (int v = 0; v < V; v++) x[v] = load(p + v * LANES);
            UNROLL for (int r = 0; r < R; r++) if (r <= row && row - r < 7) {
                Vec tap = set(taps[(row - r) * 7 + dx]);
                UNROLL for (int v = 0; v < V; v++) sum[r][v] = fma(x[v], tap, sum[r][v]);
            }
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) {
        if (v + 1 < V) store(out + r * pitch + v * LANES, sum[r][v]);
        else store_first(out + r * pitch + v * LANES, sum[r][v], last);
    }
}

// in, plus (may be null), out: the first pixel. h is at least R.
static void depthwise(const float* in, long pitch, int h, int w, const float* taps, float bias, const float* plus, float* out) {
    constexpr int R = REGISTERS / 4;
    in -= 3 * pitch + 3;
    for (int block = 0; block < h; block += R) {
        const long y = least(block, h - R) * pitch;
        for (int x = 0; x < w;) {
            const int vectors = (w - x + LANES - 1) / LANES;
            const long at = y + x;
            const float* more = plus ? plus + at : nullptr;
            if (vectors == 1) {
                depthwise_block<R, 1>(in + at, pitch, taps, bias, more, out + at, w - x);
                x += LANES;
            } else if (REGISTERS == 32 && vectors == 3) {
                depthwise_block<R, 3>(in + at, pitch, taps, bias, more, out + at, w - x - 2 * LANES);
                x += 3 * LANES;
            } else {
                depthwise_block<R, 2>(in + at, pitch, taps, bias, more, out + at, least(w - x - LANES, LANES));
                x += 2 * LANES;
            }
        }
    }
}

// A column of vectors, of which the first n lanes count. s: taps of D columns.
template <int D, bool WHOLE>
INLINE void depthwise_gradient_column(const float* in, const float* g, long pitch, int h, int n, Vec (*s)[D]) {
    constexpr int S = 2;
    for (int y = 0; y < h; y += S, in += S * pitch, g += S * pitch) {
        Vec rows[S + 6];
        UNROLL for (int i = 0; i < S + 6; i++) rows[i] = load(g + i * pitch);
        UNROLL for (int i = 0; i < S; i++) UNROLL for (int d = 0; d < D; d++) {
            const Vec v = WHOLE ? load(in + i * pitch + d) : load_first(in + i * pitch + d, n);
            UNROLL for (int dy = 0; dy < 7; dy++) s[dy][d] = fma(v, rows[i + 6 - dy], s[dy][d]);
        }
    }
}
// Taps dx to dx + D of all rows dy. sum: [49][LANES]
template <int D>
INLINE void depthwise_gradient_taps(const float* in, const float* g, long pitch, int h, int w, int dx, float* sum) {
    Vec s[7][D];
    UNROLL for (int dy = 0; dy < 7; dy++) UNROLL for (int d = 0; d < D; d++) s[dy][d] = load(sum + (dy * 7 + dx + d) * LANES);
    for (int x = 0; x < w; x += LANES) {
        const float *from = in + x + dx - 3, *gradient = g - 3 * pitch + x;
        if (w - x >= LANES) depthwise_gradient_column<D, true>(from, gradient, pitch, h, LANES, s);
        else depthwise_gradient_column<D, false>(from, gradient, pitch, h, w - x, s);
    }
    UNROLL for (int dy = 0; dy < 7; dy++) UNROLL for (int d = 0; d < D; d++) store(sum + (dy * 7 + dx + d) * LANES, s[dy][d]);
}
// g has zeros for 4 rows below the last.
static void depthwise_gradient(const float* in, const float* g, long pitch, int h, int w, float* sum) {
    parts<7, REGISTERS == 32 ? 3 : 1>([&](auto taps, int dx) { depthwise_gradient_taps<taps>(in, g, pitch, h, w, dx, sum); });
}
