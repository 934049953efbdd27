// Depthwise 7x7 convolutions of one plane, and the gradients of their taps.
//
//   depthwise            out[y][x] = bias + plus[y][x] + sum of taps[dy][dx] * in[y + dy - 3][x + dx - 3]
//   depthwise_gradient   sum[dy][dx] += sum over y, x of g[y][x] * in[y + dy - 3][x + dx - 3], for each lane of x
//
// Both keep a block of rows in registers, so that a vector that was loaded serves up to seven products. Rows of pixels lie `pitch`
// apart, with zeros around them. A Pair multiplies two taps of a row, or two pixels of a gradient, at once. Bound: the
// multiply-add units, 49 multiply-adds a pixel.
#pragma once
#include "products.h"

// Units of a row of 7 taps.
template <class Format>
constexpr int TAP_UNITS = (7 + Format::EACH - 1) / Format::EACH;

// R rows of V vectors; `last`: pixels of the last vector. in: of Format::neighbours, 3 rows above, 3 pixels left of the first.
// taps: [7][TAP_UNITS]
template <class Format, int R, int V>
INLINE void depthwise_block(const float* in, long pitch, const float* taps, float bias, const float* plus, float* out, int last) {
    Vec sum[R][V];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)
        sum[r][v] = plus ? set(bias) + load(plus + r * pitch + v * LANES) : set(bias);
    for (int unit = 0; unit < TAP_UNITS<Format>; unit++) {
        const float* p = in + unit * Format::EACH;
        UNROLL for (int row = 0; row < R + 6; row++, p += pitch) {
            Vec x[V];
            UNROLL for (int v = 0; v < V; v++) x[v] = load(p + v * LANES);
            UNROLL for (int r = 0; r < R; r++) if (r <= row && row - r < 7) {
                Vec tap = set(taps[(row - r) * TAP_UNITS<Format> + unit]);
                UNROLL for (int v = 0; v < V; v++) sum[r][v] = Format::product(x[v], tap, sum[r][v]);
            }
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) {
        if (v + 1 < V) store(out + r * pitch + v * LANES, sum[r][v]);
        else store_first(out + r * pitch + v * LANES, sum[r][v], last);
    }
}

// in, plus (may be null), out: the first pixel. h is at least R. scratch: for a plane with its zeros.
template <class Format>
void depthwise(const float* plane, long pitch, int h, int w, const float* taps, float bias, const float* plus, float* out, float* scratch) {
    constexpr int R = REGISTERS / 4;
    const float* in = Format::neighbours(plane - 3 * pitch - 3, (h + 6) * pitch + 2 * LANES, scratch);
    for (int block = 0; block < h; block += R) {
        const long y = least(block, h - R) * pitch;
        for (int x = 0; x < w;) {
            const int vectors = (w - x + LANES - 1) / LANES;
            const long at = y + x;
            const float* more = plus ? plus + at : nullptr;
            if (vectors == 1) {
                depthwise_block<Format, R, 1>(in + at, pitch, taps, bias, more, out + at, w - x);
                x += LANES;
            } else {
                depthwise_block<Format, R, 2>(in + at, pitch, taps, bias, more, out + at, least(w - x - LANES, LANES));
                x += 2 * LANES;
            }
        }
    }
}

// A column of vectors, of which the first n pixels count. s: taps of D columns.
template <class Format, int D, bool WHOLE>
INLINE void depthwise_gradient_column(const typename Format::Element* in, const typename Format::Element* g, long pitch, int h, int n,
                                      Vec (*s)[D]) {
    constexpr int S = 2;
    for (int y = 0; y < h; y += S, in += S * pitch, g += S * pitch) {
        Vec rows[S + 6];
        UNROLL for (int i = 0; i < S + 6; i++) rows[i] = Format::load_pixels(g + i * pitch);
        UNROLL for (int i = 0; i < S; i++) UNROLL for (int d = 0; d < D; d++) {
            const Vec v = WHOLE ? Format::load_pixels(in + i * pitch + d) : Format::load_first_pixels(in + i * pitch + d, n);
            UNROLL for (int dy = 0; dy < 7; dy++) s[dy][d] = Format::product(v, rows[i + 6 - dy], s[dy][d]);
        }
    }
}
// Taps dx to dx + D of all rows dy. sum: [49][LANES]
template <class Format, int D>
INLINE void depthwise_gradient_taps(const typename Format::Element* in, const typename Format::Element* g, long pitch, int h, int w, int dx,
                                    float* sum) {
    constexpr int STEP = LANES * Format::EACH;
    Vec s[7][D];
    UNROLL for (int dy = 0; dy < 7; dy++) UNROLL for (int d = 0; d < D; d++) s[dy][d] = load(sum + (dy * 7 + dx + d) * LANES);
    for (int x = 0; x < w; x += STEP) {
        const typename Format::Element *from = in + x + dx - 3, *gradient = g - 3 * pitch + x;
        if (w - x >= STEP) depthwise_gradient_column<Format, D, true>(from, gradient, pitch, h, STEP, s);
        else depthwise_gradient_column<Format, D, false>(from, gradient, pitch, h, w - x, s);
    }
    UNROLL for (int dy = 0; dy < 7; dy++) UNROLL for (int d = 0; d < D; d++) store(sum + (dy * 7 + dx + d) * LANES, s[dy][d]);
}
// in, g: the first pixel; they have zeros for 4 rows above the first and below the last. scratch, scratch2: for a plane with them.
template <class Format>
void depthwise_gradient(float* in, float* g, long pitch, int h, int w, float* sum, float* scratch, float* scratch2) {
    const long before = 4 * pitch, pixels = up((h + 8) * pitch + 2 * LANES, 2 * LANES);
    const typename Format::Element* elements = Format::rows({in - before, 0}, 1, pixels, {scratch, 0}).at + before;
    const typename Format::Element* gradients = Format::rows({g - before, 0}, 1, pixels, {scratch2, 0}).at + before;
    parts<7, REGISTERS == 32 ? 3 : 1>(
        [&](auto taps, int dx) { depthwise_gradient_taps<Format, taps>(elements, gradients, pitch, h, w, dx, sum); });
}
