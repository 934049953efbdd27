// The network's parameters: where each tensor is in the array of all, the weights as the products read them, and the gradients of
// those, to be turned back into gradients of the tensors.
//
// The array has the tensors in the order of model.py's parameters. Two linear rewrites are done on the way and undone for the
// gradients: LayerNorm's affine is folded into f1, f2 and f3, and ESA's conv1 after f3, and conv_f after that, become one map each
// from LayerNorm's output to ESA's channels.
#pragma once
#include <cmath>

#include "depthwise.h"

constexpr int SIZE_LIST[] = {SIZES};
// Scale, input channels, channels, blocks, wide channels, ESA's, CAB's inner, channel attention's.
constexpr int SCALE = SIZE_LIST[0], IN = SIZE_LIST[1], C = SIZE_LIST[2], BLOCKS = SIZE_LIST[3], M = SIZE_LIST[4], E = SIZE_LIST[5],
              R = SIZE_LIST[6], Q = SIZE_LIST[7], OUT = IN * SCALE * SCALE;

struct TensorAt {
    long weight, bias;
};
struct BlockAt {
    TensorAt dwconv, ln, f[3], esa_conv1, esa_conv_f, esa_conv2, esa_conv3, esa_conv4, g, dwconv2, cab0, cab2, squeeze, excite;
};
struct Layout {
    TensorAt conv_1, conv_2, upsampler;
    BlockAt block[BLOCKS];
    long end = 0;

    TensorAt take(long outs, long ins) {
        TensorAt at = {end, end + outs * ins};
        end = at.bias + outs;
        return at;
    }
    Layout() {
        conv_1 = take(C, IN * 9);
        for (BlockAt& b : block) {
            b.dwconv = take(C, 49), b.ln = take(C, 1);
            for (TensorAt& f : b.f) f = take(M, C);
            b.esa_conv1 = take(E, M), b.esa_conv_f = take(E, E), b.esa_conv2 = take(E, 9 * E), b.esa_conv3 = take(E, 9 * E);
            b.esa_conv4 = take(M, E), b.g = take(C, M), b.dwconv2 = take(C, 49), b.cab0 = take(R, 9 * C), b.cab2 = take(C, 9 * R);
            b.squeeze = take(Q, C), b.excite = take(C, Q);
        }
        conv_2 = take(C, 9 * C), upsampler = take(OUT, 9 * C);
    }
};

// ESA's conv1 after f3 (the first E rows), and conv_f after that, as maps of LayerNorm's output with its affine.
struct Narrow {
    float weight[2 * E][C], bias[2 * E];
};
inline Narrow fold_narrow(const float* p, const BlockAt& at) {
    Narrow fold = {};
    for (int e = 0; e < E; e++) {
        fold.bias[e] = p[at.esa_conv1.bias + e];
        for (int m = 0; m < M; m++) {
            const float w = p[at.esa_conv1.weight + e * M + m];
            fold.bias[e] += w * p[at.f[2].bias + m];
            for (int c = 0; c < C; c++) fold.weight[e][c] += w * p[at.f[2].weight + m * C + c];
        }
    }
    for (int e = 0; e < E; e++) {
        fold.bias[E + e] = p[at.esa_conv_f.bias + e];
        for (int d = 0; d < E; d++) {
            const float w = p[at.esa_conv_f.weight + e * E + d];
            fold.bias[E + e] += w * fold.bias[d];
            for (int c = 0; c < C; c++) fold.weight[E + e][c] += w * fold.weight[d][c];
        }
    }
    return fold;
}

// weight[outs][ins][TAPS], and the map that takes gradients back through it.
template <int N, int K, int TAPS, class Forward, class Back>
void set_conv(Forward& forward, Back& back, const float* p, TensorAt at) {
    const float* w = p + at.weight;
    forward.set([&](int n, int k, int t) { return w[(n * K + k) * TAPS + t]; }, p + at.bias);
    back.set([&](int k, int n, int t) { return w[(n * K + k) * TAPS + t]; });
}

// Wide channels are computed GROUP at a time. The last group is filled up with zeros.
constexpr int GROUP = least(up(M, 2), 16), GROUPS = (M + GROUP - 1) / GROUP, WIDE = GROUPS * GROUP;

template <class Format>
struct BlockWeights {
    typedef float Taps[7 * TAP_UNITS<Format>];
    Taps dwconv[C], dwconv_back[C], dwconv2[C], dwconv2_back[C];
    float dwconv_bias[C], dwconv2_bias[C];
    Map<Format, 2 * E, C> narrow;
    Map<Format, C, 2 * E> narrow_back;
    Map<Format, GROUP, C> f[GROUPS][3];
    Map<Format, GROUP, E> conv4[GROUPS];
    Map<Format, GROUP, C> g_back[GROUPS];
    Map<Format, C, 3 * WIDE> f_back;
    Map<Format, E, WIDE> conv4_back;
    Map<Format, C, WIDE> g;
    Map<Format, R, C, 9> cab0;
    Map<Format, C, R, 9> cab0_back, cab2;
    Map<Format, R, C, 9> cab2_back;
    Map<Float, E, E, 9> conv2;
    float conv2_weight[E][9][E], conv3[9][E][E], conv3_back[9][E][E], conv3_bias[E];
    float squeeze[Q][C], squeeze_bias[Q], excite[C][Q], excite_bias[C];

    static void set_taps(float* taps, float* back, const float* weight) {
        for (int dy = 0; dy < 7; dy++) for (int dx = 0; dx < 7; dx += Format::EACH) {
            const int t = dy * 7 + dx, unit = dy * TAP_UNITS<Format> + dx / Format::EACH;
            Format::put(taps + unit, weight[t], dx < 6 ? weight[t + 1] : 0);
            Format::put(back + unit, weight[48 - t], dx < 6 ? weight[47 - t] : 0);
        }
    }
    void set(const float* p, const BlockAt& at) {
        for (int c = 0; c < C; c++) {
            set_taps(dwconv[c], dwconv_back[c], p + at.dwconv.weight + c * 49);
            set_taps(dwconv2[c], dwconv2_back[c], p + at.dwconv2.weight + c * 49);
        }
        memcpy(dwconv_bias, p + at.dwconv.bias, sizeof dwconv_bias), memcpy(dwconv2_bias, p + at.dwconv2.bias, sizeof dwconv2_bias);
        const float *scale = p + at.ln.weight, *shift = p + at.ln.bias;
        const auto with_shift = [&](float bias, const float* w) {
            for (int c = 0; c < C; c++) bias += w[c] * shift[c];
            return bias;
        };
        for (int j = 0; j < GROUPS; j++) {
            for (int i = 0; i < 3; i++) {
                const float* w = p + at.f[i].weight;
                float bias[GROUP] = {};
                for (int n = 0; n < GROUP && j * GROUP + n < M; n++)
                    bias[n] = with_shift(p[at.f[i].bias + j * GROUP + n], w + (j * GROUP + n) * C);
                f[j][i].set([&](int n, int k, int) { return j * GROUP + n < M ? w[(j * GROUP + n) * C + k] * scale[k] : 0; }, bias);
            }
            float bias[GROUP] = {};
            for (int n = 0; n < GROUP && j * GROUP + n < M; n++) bias[n] = p[at.esa_conv4.bias + j * GROUP + n];
            conv4[j].set([&](int n, int k, int) { return j * GROUP + n < M ? p[at.esa_conv4.weight + (j * GROUP + n) * E + k] : 0; }, bias);
            g_back[j].set([&](int n, int k, int) { return j * GROUP + n < M ? p[at.g.weight + k * M + j * GROUP + n] : 0; });
        }
        g.set([&](int n, int k, int) { return k < M ? p[at.g.weight + n * M + k] : 0; }, p + at.g.bias);
        f_back.set([&](int n, int k, int) { return k % WIDE < M ? p[at.f[k / WIDE].weight + k % WIDE * C + n] * scale[n] : 0; });
        conv4_back.set([&](int n, int k, int) { return k < M ? p[at.esa_conv4.weight + k * E + n] : 0; });
        const Narrow fold = fold_narrow(p, at);
        float bias[2 * E];
        for (int e = 0; e < 2 * E; e++) bias[e] = with_shift(fold.bias[e], fold.weight[e]);
        narrow.set([&](int n, int k, int) { return fold.weight[n][k] * scale[k]; }, bias);
        narrow_back.set([&](int n, int k, int) { return fold.weight[k][n] * scale[n]; });
        set_conv<R, C, 9>(cab0, cab0_back, p, at.cab0), set_conv<C, R, 9>(cab2, cab2_back, p, at.cab2);
        for (int o = 0; o < E; o++) for (int i = 0; i < E; i++) for (int t = 0; t < 9; t++) {
            conv2_weight[o][t][i] = p[at.esa_conv2.weight + (o * E + i) * 9 + t];
            conv3[t][i][o] = conv3_back[t][o][i] = p[at.esa_conv3.weight + (o * E + i) * 9 + t];
        }
        conv2.set([&](int n, int k, int t) { return conv2_weight[n][t][k]; }, p + at.esa_conv2.bias);
        memcpy(conv3_bias, p + at.esa_conv3.bias, sizeof conv3_bias);
        memcpy(squeeze, p + at.squeeze.weight, sizeof squeeze), memcpy(squeeze_bias, p + at.squeeze.bias, sizeof squeeze_bias);
        memcpy(excite, p + at.excite.weight, sizeof excite), memcpy(excite_bias, p + at.excite.bias, sizeof excite_bias);
    }
};

template <class Format>
struct Weights {
    Map<Float, C, IN, 9> conv_1;
    BlockWeights<Format> block[BLOCKS];
    Map<Format, C, C, 9> conv_2, conv_2_back;
    // In f32: what it rounds would be seen in the image.
    Map<Float, OUT, C, 9> upsampler;
    Map<Format, C, OUT, 9> upsampler_back;

    void set(const float* p, const Layout& at) {
        conv_1.set([&](int n, int k, int t) { return p[at.conv_1.weight + (n * IN + k) * 9 + t]; }, p + at.conv_1.bias);
        for (int b = 0; b < BLOCKS; b++) block[b].set(p, at.block[b]);
        set_conv<C, C, 9>(conv_2, conv_2_back, p, at.conv_2), set_conv<OUT, C, 9>(upsampler, upsampler_back, p, at.upsampler);
    }
};

// Sums of gradients over a thread's samples. Members whose last dimension is LANES are to be summed over it.
template <class Format>
struct BlockGradients {
    alignas(64) float dwconv[C][49][LANES], dwconv_bias[C][LANES], dwconv2[C][49][LANES], dwconv2_bias[C][LANES];
    // Rows: f1, f2, f3; conv1, conv_f; g's inputs; conv4's outputs; CAB's inner channels. Columns: the other side.
    Sum<Format, 3 * WIDE, C> f;
    Sum<Format, 2 * E, C> narrow;
    Sum<Format, WIDE, C> g;
    Sum<Format, WIDE, E> conv4;
    Sum<Format, R, C, 9> cab0, cab2;
    alignas(64) float f_bias[3 * WIDE][LANES], narrow_bias[2 * E][LANES], g_bias[C][LANES], conv4_bias[WIDE][LANES], cab0_bias[R][LANES],
        cab2_bias[C][LANES];
    float conv2[E][9][E], conv2_bias[E], conv3[9][E][E], conv3_bias[E];
    float squeeze[Q][C], squeeze_bias[Q], excite[C][Q], excite_bias[C];
};
template <class Format>
struct alignas(64) Gradients {
    // Rows: inputs of conv_1; outputs of conv_2 and of the upsampler.
    Sum<Float, IN, C, 9> conv_1;
    Sum<Format, C, C, 9> conv_2;
    Sum<Format, OUT, C, 9> upsampler;
    alignas(64) float conv_1_bias[C][LANES], conv_2_bias[C][LANES], upsampler_bias[OUT][LANES];
    BlockGradients<Format> block[BLOCKS];
};

inline float total(const float* lanes) { return sum_lanes(load(lanes)); }

// From the gradients of a block's weights to those of its tensors.
template <class Format>
void put_block(const BlockGradients<Format>& from, const float* p, const BlockAt& at, float* out) {
    for (int c = 0; c < C; c++) {
        for (int t = 0; t < 49; t++) {
            out[at.dwconv.weight + c * 49 + t] = total(from.dwconv[c][t]);
            out[at.dwconv2.weight + c * 49 + t] = total(from.dwconv2[c][t]);
        }
        out[at.dwconv.bias + c] = total(from.dwconv_bias[c]), out[at.dwconv2.bias + c] = total(from.dwconv2_bias[c]);
    }
    const float *scale = p + at.ln.weight, *shift = p + at.ln.bias;
    float *g_scale = out + at.ln.weight, *g_shift = out + at.ln.bias;
    std::fill(g_scale, g_scale + C, 0.f), std::fill(g_shift, g_shift + C, 0.f);
    // A row of a map of LayerNorm's output, w, from the gradient of that row with the affine in it.
    const auto unfold = [&](const float* row, float bias, const float* w, float* g_w) {
        for (int c = 0; c < C; c++) {
            g_w[c] = row[c] * scale[c] + bias * shift[c];
            g_scale[c] += w[c] * row[c], g_shift[c] += w[c] * bias;
        }
    };
    for (int i = 0; i < 3; i++) for (int m = 0; m < M; m++) {
        const float bias = out[at.f[i].bias + m] = total(from.f_bias[i * WIDE + m]);
        unfold(from.f.sum[0][i * WIDE + m], bias, p + at.f[i].weight + m * C, out + at.f[i].weight + m * C);
    }
    const Narrow fold = fold_narrow(p, at);
    Narrow g;
    for (int e = 0; e < 2 * E; e++) unfold(from.narrow.sum[0][e], g.bias[e] = total(from.narrow_bias[e]), fold.weight[e], g.weight[e]);
    for (int e = 0; e < E; e++) {
        out[at.esa_conv_f.bias + e] = g.bias[E + e];
        for (int d = 0; d < E; d++) {
            const float w = p[at.esa_conv_f.weight + e * E + d];
            float sum = g.bias[E + e] * fold.bias[d];
            for (int c = 0; c < C; c++) sum += g.weight[E + e][c] * fold.weight[d][c], g.weight[d][c] += w * g.weight[E + e][c];
            out[at.esa_conv_f.weight + e * E + d] = sum, g.bias[d] += w * g.bias[E + e];
        }
    }
    for (int e = 0; e < E; e++) {
        out[at.esa_conv1.bias + e] = g.bias[e];
        for (int m = 0; m < M; m++) {
            const float w = p[at.esa_conv1.weight + e * M + m], *w3 = p + at.f[2].weight + m * C;
            float sum = g.bias[e] * p[at.f[2].bias + m], *g3 = out + at.f[2].weight + m * C;
            for (int c = 0; c < C; c++) sum += g.weight[e][c] * w3[c], g3[c] += w * g.weight[e][c];
            out[at.esa_conv1.weight + e * M + m] = sum, out[at.f[2].bias + m] += w * g.bias[e];
        }
    }
    for (int m = 0; m < M; m++) {
        for (int e = 0; e < E; e++) out[at.esa_conv4.weight + m * E + e] = from.conv4.sum[0][m][e];
        out[at.esa_conv4.bias + m] = total(from.conv4_bias[m]);
        for (int c = 0; c < C; c++) out[at.g.weight + c * M + m] = from.g.sum[0][m][c];
    }
    for (int c = 0; c < C; c++) out[at.g.bias + c] = total(from.g_bias[c]), out[at.cab2.bias + c] = total(from.cab2_bias[c]);
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) for (int t = 0; t < 9; t++) {
            out[at.cab0.weight + (r * C + c) * 9 + t] = from.cab0.sum[t][r][c];
            out[at.cab2.weight + (c * R + r) * 9 + t] = from.cab2.sum[t][r][c];
        }
        out[at.cab0.bias + r] = total(from.cab0_bias[r]);
    }
    for (int o = 0; o < E; o++) {
        for (int i = 0; i < E; i++) for (int t = 0; t < 9; t++) {
            out[at.esa_conv2.weight + (o * E + i) * 9 + t] = from.conv2[o][t][i];
            out[at.esa_conv3.weight + (o * E + i) * 9 + t] = from.conv3[t][i][o];
        }
        out[at.esa_conv2.bias + o] = from.conv2_bias[o], out[at.esa_conv3.bias + o] = from.conv3_bias[o];
    }
    memcpy(out + at.squeeze.weight, from.squeeze, sizeof from.squeeze);
    memcpy(out + at.squeeze.bias, from.squeeze_bias, sizeof from.squeeze_bias);
    memcpy(out + at.excite.weight, from.excite, sizeof from.excite), memcpy(out + at.excite.bias, from.excite_bias, sizeof from.excite_bias);
}

template <class Format>
void put_gradients(const Gradients<Format>& from, const float* p, const Layout& at, float* out) {
    for (int b = 0; b < BLOCKS; b++) put_block(from.block[b], p, at.block[b], out);
    for (int c = 0; c < C; c++) {
        for (int t = 0; t < 9; t++) {
            for (int i = 0; i < IN; i++) out[at.conv_1.weight + (c * IN + i) * 9 + t] = from.conv_1.sum[t][i][c];
            for (int o = 0; o < C; o++) out[at.conv_2.weight + (o * C + c) * 9 + t] = from.conv_2.sum[t][o][c];
            for (int o = 0; o < OUT; o++) out[at.upsampler.weight + (o * C + c) * 9 + t] = from.upsampler.sum[t][o][c];
        }
        out[at.conv_1.bias + c] = total(from.conv_1_bias[c]), out[at.conv_2.bias + c] = total(from.conv_2_bias[c]);
    }
    for (int o = 0; o < OUT; o++) out[at.upsampler.bias + o] = total(from.upsampler_bias[o]);
}
