// The backward pass of a sample: gradients of activations, from the loss to the first convolution, and of all weights.
//
// Planes of gradients are named after what they are gradients of: gy of a block's output, gu of the input of its CAB, g_gated of
// g's output, g_normal of LayerNorm's output and then of its input, g_narrow of ESA's narrow maps.
#pragma once
#include "sample.h"

// g_out to the gradients of the last block's output, gy, and, by the long skip, of the first's input, to_first.
template <class Format>
void Sample<Format>::tail_back(const Weights<Format>& weights, Gradients<Format>& g) {
    add_gradient<-1>(g.upsampler, g_out, first_sum), add_sums(g_out, stride, OUT, body, g.upsampler_bias);
    convolve(weights.upsampler_back, g_out, back, to_first);
    clear_gaps(to_first, C);
    add_gradient<-1>(g.conv_2, to_first, y), add_sums(to_first, stride, C, body, g.conv_2_bias);
    convolve(weights.conv_2_back, to_first, back, gy);
    clear_gaps(gy, C);
}

// gy, of the block's output y, to gu, of CAB's input.
template <class Format>
void Sample<Format>::cab_back(const BlockWeights<Format>& weights, Saved& b, float* y, BlockGradients<Format>& g) {
    float g_squeezed[Q] = {}, g_mean[C] = {};
    for (int c = 0; c < C; c++) {
        Vec s = set(0), s2 = set(0);
        const float *a = y + c * stride, *d = gy + c * stride;
        for (long q = 0; q < body; q += 2 * LANES) s = fma(load(a + q), load(d + q), s), s2 = fma(load(a + q + LANES), load(d + q + LANES), s2);
        // y = z a, and the sigmoid's slope is a (1 - a).
        const float slope = sum_lanes(s + s2) * (1 - b.attention[c]);
        g.excite_bias[c] += slope;
        for (int i = 0; i < Q; i++) g.excite[c][i] += slope * b.squeezed[i], g_squeezed[i] += slope * weights.excite[c][i];
    }
    for (int i = 0; i < Q; i++) if (b.squeezed[i] > 0) {
        g.squeeze_bias[i] += g_squeezed[i];
        for (int c = 0; c < C; c++)
            g.squeeze[i][c] += g_squeezed[i] * b.mean[c], g_mean[c] += g_squeezed[i] * weights.squeeze[i][c] / (h * w);
    }
    for (int c = 0; c < C; c++) for (long q = 0; q < body; q += LANES)
        store(gz + c * stride + q, fma(load(gy + c * stride + q), set(b.attention[c]), set(g_mean[c])));
    clear_gaps(gz, C);
    add_gradient<1>(g.cab2, b.inner, gz), add_sums(gz, stride, C, body, g.cab2_bias);
    convolve(weights.cab2_back, gz, back, g_inner);
    for (int r = 0; r < R; r++) for (long q = r * stride; q < r * stride + body; q += LANES)
        store(g_inner + q, load(g_inner + q) * load(b.slope + q));
    add_gradient<-1>(g.cab0, g_inner, b.u), add_sums(g_inner, stride, R, body, g.cab0_bias);
    convolve(weights.cab0_back, g_inner, back, gu);
    clear_gaps(gu, C);
}

// The gate's gradients at PART pixels of channels n and n + 1 of a group, from maps[5][GROUP][PART].
template <class Format>
INLINE void Sample<Format>::gate_back_channels(int group, int n, BlockGradients<Format>& g) {
    constexpr int GP = GROUP * PART;
    const int at = group * GROUP + n;
    Vec sums[4][2];
    UNROLL for (int k = 0; k < 2; k++) {
        UNROLL for (int i = 0; i < 3; i++) sums[i][k] = load(g.f_bias[i * WIDE + at + k]);
        sums[3][k] = load(g.conv4_bias[at + k]);
    }
    for (int i = 0; i < PART; i += LANES) {
        Vec t[2], d[4][2];
        UNROLL for (int k = 0; k < 2; k++) {
            const float* m = maps + (n + k) * PART + i;
            const Vec f1 = load(m), f2 = load(m + GP), f3 = load(m + 2 * GP), a = sigmoid(load(m + 3 * GP)), gt = load(m + 4 * GP);
            const Vec clipped = vmin(vmax(f1, set(0)), set(6)), f3a = f3 * a;
            t[k] = fma(clipped, f2, f3a);
            d[0][k] = where_equal(f1, clipped, gt * f2), d[1][k] = gt * clipped, d[2][k] = gt * a, d[3][k] = d[2][k] * (f3 - f3a);
            UNROLL for (int j = 0; j < 4; j++) sums[j][k] += d[j][k];
        }
        Format::put_rows(t_rows + i, PART, at, t[0], t[1]);
        UNROLL for (int j = 0; j < 4; j++) {
            Format::put_inputs(f_inputs + i, PART, j * WIDE + at, d[j][0], d[j][1]);
            if (!Format::ROWS_ARE_INPUTS) Format::put_rows(f_rows + i, PART, j * WIDE + at, d[j][0], d[j][1]);
        }
    }
    UNROLL for (int k = 0; k < 2; k++) {
        UNROLL for (int i = 0; i < 3; i++) store(g.f_bias[i * WIDE + at + k], sums[i][k]);
        store(g.conv4_bias[at + k], sums[3][k]);
    }
}

// g_gated to g_normal, but for what comes through the narrow maps, and to the gradient of conv4's input in g_narrow.
template <class Format>
void Sample<Format>::gate_back(const BlockWeights<Format>& weights, Saved& b, BlockGradients<Format>& g, Clock& clock) {
    const Planes<Element> rows = {f_rows, PART};
    const Planes<float> g4_inputs = {f_inputs + 3 * WIDE / Format::EACH * PART, PART};
    for (long q = 0; q < body; q += PART) {
        float* s_planes = b.narrow + E * stride + q;
        const Planes<float> normal = Format::inputs(whole(b.normal + q), C, PART, part(part_scratch));
        const Planes<float> s = Format::inputs(whole(s_planes), E, PART, part(part_scratch2));
        const Planes<float> gated = Format::inputs(whole(g_gated + q), C, PART, part(part_scratch3));
        for (int j = 0; j < GROUPS; j++) {
            wide_maps(weights, normal, s, j, maps);
            weights.g_back[j].apply(gated, nullptr, part(maps + 4 * GROUP * PART), PART);
            for (int n = 0; n < GROUP; n += 2) gate_back_channels(j, n, g);
        }
        clock.done(BACK_GATE);
        weights.f_back.apply(part(f_inputs), nullptr, whole(g_normal + q), PART);
        weights.conv4_back.apply(g4_inputs, nullptr, whole(g_narrow + E * stride + q), PART);
        clock.done(BACK_F);
        g.f.add(rows, nullptr, Format::columns(whole(b.normal + q), C, PART, columns_scratch), PART);
        g.g.add({t_rows, PART}, nullptr, Format::columns(whole(g_gated + q), C, PART, columns_scratch), PART);
        g.conv4.add({rows.of(3 * WIDE), PART}, nullptr, Format::columns(whole(s_planes), E, PART, columns_scratch), PART);
        clock.done(BACK_GATE_W);
    }
    add_sums(g_gated, stride, C, body, g.g_bias);
}

// The gradient of conv4's input to that of conv1's output, both in g_narrow.
template <class Format>
void Sample<Format>::grid_back(const BlockWeights<Format>& weights, Saved& b, BlockGradients<Format>& g) {
    const int cells = grid_h * grid_w;
    float* g_pool = g_grid + cells * E;
    memset(grid_rows, 0, grid_h * E * row_width * sizeof(float)), memset(g_pool, 0, cells * E * sizeof(float));
    for (int c = 0; c < E; c++) memset(g_narrow + c * stride, 0, body * sizeof(float));
    for (int e = 0; e < E; e++) for (int i = 0; i < h; i++) {
        float *above = grid_rows + (y0[i] * E + e) * row_width, *below = grid_rows + (y1[i] * E + e) * row_width;
        const float* from = g_narrow + (E + e) * stride + i * pitch + 3;
        for (int j = 0; j < w; j += LANES) {
            const Vec v = load(from + j), low = v * set(y_share[i]);
            store(above + j, load(above + j) + (v - low)), store(below + j, load(below + j) + low);
        }
    }
    for (int i = 0; i < grid_h; i++) for (int e = 0; e < E; e++) for (int k = 0; k < grid_w; k++) {
        Vec sum = set(0);
        for (int j = 0; j < row_width; j += LANES) sum = fma(load(grid_rows + (i * E + e) * row_width + j), load(&hat[k * row_width + j]), sum);
        g.conv3_bias[e] += g_grid[(i * grid_w + k) * E + e] = sum_lanes(sum);
    }
    each_cell([&](int cell, auto each_neighbour) {
        float gradient[E];
        memcpy(gradient, g_grid + cell * E, sizeof gradient);
        each_neighbour([&](int from, int t) {
            float sum[E];
            memcpy(sum, g_pool + from * E, sizeof sum);
            for (int i = 0; i < E; i++) for (int o = 0; o < E; o++) g.conv3[t][i][o] += b.pooled[from * E + i] * gradient[o];
            for (int o = 0; o < E; o++) for (int i = 0; i < E; i++) sum[i] += gradient[o] * weights.conv3_back[t][o][i];
            memcpy(g_pool + from * E, sum, sizeof sum);
        });
    });
    // Windows overlap, and many take the same pixel: sum first, then visit each pixel once.
    const long plane = (long)conv2_h * conv2_pitch;
    for (int i = 0; i < cells * E; i++) g_conv2[i % E * plane + b.pool_from[i]] += g_pool[i];
    for (int i = 0; i < cells * E; i++) {
        const int e = i % E, from = b.pool_from[i];
        const float v = g_conv2[e * plane + from];
        if (v == 0) continue;
        g_conv2[e * plane + from] = 0;
        g.conv2_bias[e] += v;
        float* corner = g_narrow + from / conv2_pitch * 2 * pitch + from % conv2_pitch * 2 + 3;
        const float* c1 = b.narrow + (corner - g_narrow);
        for (int k = 0; k < E; k++) for (int t = 0; t < 9; t++) {
            const long at = k * stride + t / 3 * pitch + t % 3;
            g.conv2[e][t][k] += v * c1[at], corner[at] += v * weights.conv2_weight[e][t][k];
        }
    }
}

// g_narrow and g_normal to the gradient of dwconv's output, in g_normal.
template <class Format>
void Sample<Format>::normalise_back(const BlockWeights<Format>& weights, Saved& b, BlockGradients<Format>& g) {
    for (long q = 0; q < body; q += PART) {
        const Planes<float> units = Format::inputs(whole(g_narrow + q), 2 * E, PART, part(part_scratch));
        weights.narrow_back.template apply<true>(units, nullptr, whole(g_normal + q), PART);
        g.narrow.add(Format::rows(whole(g_narrow + q), 2 * E, PART, part(part_scratch2)), nullptr,
                     Format::columns(whole(b.normal + q), C, PART, columns_scratch), PART);
        for (int i = 0; i < PART; i += LANES) layer_norm_back(g_normal + q + i, b.normal + q + i, b.rstd + q + i);
    }
    add_sums(g_narrow, stride, 2 * E, body, g.narrow_bias);
}

template <class Format>
INLINE void Sample<Format>::layer_norm_back(float* p, const float* normal, const float* rstd) const {
    Vec mean = set(0), along = set(0);
    for (int c = 0; c < C; c++) {
        const Vec d = load(p + c * stride);
        mean += d, along = fma(d, load(normal + c * stride), along);
    }
    mean *= set(1.f / C), along *= set(1.f / C);
    for (int c = 0; c < C; c++)
        store(p + c * stride, fnma(load(normal + c * stride), along, load(p + c * stride) - mean) * load(rstd));
}

template <class Format>
void Sample<Format>::depthwise_gradients(float* in, float* g, float (*sum)[49][LANES], float (*bias)[LANES]) {
    for (int c = 0; c < C; c++) depthwise_gradient<Format>(in + c * stride + 3, g + c * stride + 3, pitch, h, w, sum[c][0], plane_scratch, plane_scratch2);
    add_sums(g, stride, C, body, bias);
}

template <class Format>
void Sample<Format>::head_back(Gradients<Format>& g) {
    for (long i = 0; i < C * stride; i += LANES) store(to_first + i, load(to_first + i) + load(gy + i));
    add_gradient<1>(g.conv_1, x, to_first), add_sums(to_first, stride, C, body, g.conv_1_bias);
}

// From g_out.
template <class Format>
void Sample<Format>::backward(const Weights<Format>& weights, Gradients<Format>& g, Clock& clock) {
    tail_back(weights, g);
    clock.done(BACK_TAIL);
    for (int i = BLOCKS - 1; i >= 0; i--) {
        Saved& b = block[i];
        const BlockWeights<Format>& bw = weights.block[i];
        BlockGradients<Format>& bg = g.block[i];
        cab_back(bw, b, block_output(i), bg);
        clock.done(BACK_CAB);
        depthwise_gradients(b.gated, gu, bg.dwconv2, bg.dwconv2_bias);
        clock.done(BACK_DW_W);
        for (int c = 0; c < C; c++)
            depthwise<Format>(gu + c * stride + 3, pitch, h, w, bw.dwconv2_back[c], 0, nullptr, g_gated + c * stride + 3, plane_scratch);
        clock.done(BACK_DW);
        gate_back(bw, b, bg, clock);
        grid_back(bw, b, bg);
        clock.done(BACK_GRID);
        normalise_back(bw, b, bg);
        clock.done(BACK_LN);
        depthwise_gradients(b.in, g_normal, bg.dwconv, bg.dwconv_bias);
        clock.done(BACK_DW_W);
        for (int c = 0; c < C; c++)
            depthwise<Format>(g_normal + c * stride + 3, pitch, h, w, bw.dwconv_back[c], 0, gu + c * stride + 3, gy + c * stride + 3, plane_scratch);
        clock.done(BACK_DW);
    }
    head_back(g);
    clock.done(HEAD);
}
