// One sample through the whole network and back: activations, gradients of activations, and the sums of gradients of weights.
//
// Planes are [channel][pixel] f32, `stride` apart. Pixels lie on a line, rows of w + 3: the three zeros between two rows serve
// both, so that a 3x3 convolution is a sum over shifts of the line. These pixels between rows ("gaps") are zero in every plane
// that a convolution or a sum over pixels reads; where products have left anything there, clear_gaps mends it.
//
// A sample's activations stay in the cache, as samples of a batch never meet. The wide maps, three quarters of all activations,
// exist for PART pixels at a time and are computed again in the backward pass.
#pragma once
#include <sys/mman.h>

#include <vector>

#include "clock.h"
#include "weights.h"

// Pixels of a step of products: the wide maps of a step have to stay in the second cache, and a Sum of tiles loads and stores its
// sums in each step.
#if defined(__AMX_BF16__) || defined(STAND_IN)
constexpr int PART = 256;
#else
constexpr int PART = M > 64 ? 64 : 128;
#endif
constexpr float LAYER_NORM_EPS = 1e-5f;
// ESA's max pool.
constexpr int POOL = 7, POOL_STRIDE = 3;

// Weights of the losses of pixels, and the batch's size. `given`: the target is the gradient with respect to the output.
struct Loss {
    float l1, charbonnier, psnr, eps;
    bool given;
    int batch;
};

// What the backward pass needs of a block.
struct Saved {
    float *in, *normal, *rstd, *narrow, *gated, *u, *inner, *slope, *pooled;
    int* pool_from;  // the pixel of conv2's output that the pool took: [cell][E]
    float attention[C], squeezed[Q], mean[C];
};

template <class Format>
struct Sample {
    typedef typename Format::Element Element;
    const int h, w;
    const long pitch, body, edge, stride;
    long shift[9], back[9];
    const int conv2_h, conv2_w, conv2_pitch, grid_h, grid_w, row_width;
    std::vector<int> y0, y1;
    std::vector<float> y_share, hat;
    Saved block[BLOCKS];
    float *x, *y, *first_sum, *out, *g_out, *to_first, *gy, *gu, *gz, *g_inner, *g_gated, *g_normal, *g_narrow;
    float *plane_scratch, *plane_scratch2, *inputs_scratch, *rows_scratch, *columns_scratch, *part_scratch, *part_scratch2, *part_scratch3;
    float *even_odd, *conv2_out, *g_conv2, *pool_columns, *grid, *g_grid, *grid_rows;
    float *maps, *t_inputs, *f_inputs;
    Element *t_rows, *f_rows;
    char* memory = nullptr;
    size_t size = 0, used = 0;

    Sample(int h, int w)
        : h(h), w(w), pitch(w + 3), body(up(h * (w + 3), PART)), edge(up(4 * (w + 3) + 128, 16)),
          // An odd number of cache lines, so that planes do not meet in one set of the cache.
          stride((up(body + edge, 16) / 16 | 1) * 16), conv2_h((h - 3) / 2 + 1), conv2_w((w - 3) / 2 + 1),
          conv2_pitch(up(conv2_w + 2, 2 * LANES) + 2 * LANES), grid_h((conv2_h - POOL) / POOL_STRIDE + 1),
          grid_w((conv2_w - POOL) / POOL_STRIDE + 1), row_width(up(w, LANES)) {
        for (int t = 0; t < 9; t++) shift[t] = (t / 3 - 1) * pitch + t % 3 - 1, back[t] = -shift[t];
        set_shares();
        lay_out();
        size = (used + (2 << 20) - 1) >> 21 << 21;
        memory = (char*)mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(memory, size, MADV_HUGEPAGE);
        lay_out();
    }
    ~Sample() { munmap(memory, size); }
    Sample(const Sample&) = delete;

    template <class T>
    T* take(long n) {
        T* p = (T*)(memory + used);
        used += (n * sizeof(T) + 63) / 64 * 64 + 64;
        return p;
    }
    float* planes(int n) { return take<float>(n * stride + edge) + edge; }
    Planes<float> whole(float* planes) const { return {planes, stride}; }
    static Planes<float> part(float* planes) { return {planes, PART}; }
    // Called twice: for the size, then for the pointers.
    void lay_out() {
        used = 0;
        const int cells = grid_h * grid_w;
        x = planes(IN);
        for (Saved& b : block) {
            b.in = planes(C), b.normal = planes(C), b.rstd = planes(1), b.narrow = planes(2 * E), b.gated = planes(C), b.u = planes(C);
            b.inner = planes(R), b.slope = planes(R), b.pooled = take<float>(cells * E), b.pool_from = take<int>(cells * E);
        }
        y = planes(C), first_sum = planes(C), out = planes(OUT), g_out = planes(OUT), to_first = planes(C), gy = planes(C);
        gu = planes(C), gz = planes(C), g_inner = planes(R), g_gated = planes(C), g_normal = planes(C), g_narrow = planes(2 * E);
        // Tiles read up to 15 units behind the last.
        const int most = std::max({C, OUT, R, 2 * E}) + 16;
        plane_scratch = take<float>(body + 2 * edge), plane_scratch2 = take<float>(body + 2 * edge);
        inputs_scratch = planes(most), rows_scratch = planes(most);
        columns_scratch = take<float>(PART * up(std::max(C, E), LANES));
        even_odd = take<float>(2 * E * h * conv2_pitch), conv2_out = take<float>((E + 1) * conv2_h * conv2_pitch);
        g_conv2 = take<float>(E * conv2_h * conv2_pitch), pool_columns = take<float>(2 * conv2_pitch);
        grid = take<float>(cells * E), g_grid = take<float>(2 * cells * E), grid_rows = take<float>(grid_h * E * row_width);
        part_scratch = take<float>(most * PART), part_scratch2 = take<float>(most * PART), part_scratch3 = take<float>(most * PART);
        maps = take<float>(5 * GROUP * PART), t_inputs = take<float>(WIDE * PART), t_rows = take<Element>(WIDE * PART);
        f_inputs = take<float>(4 * WIDE * PART), f_rows = Format::ROWS_ARE_INPUTS ? (Element*)f_inputs : take<Element>(4 * WIDE * PART);
    }
    // Half-pixel centres, clamped at the edges: rows y0, y1 and the share of y1; hat[j][x]: the share of column j in pixel x.
    void set_shares() {
        const auto place = [](int i, int from, int to, int* i0, int* i1) {
            const float at = std::max(0.f, (i + 0.5f) * ((float)from / to) - 0.5f);
            *i0 = std::min((int)at, from - 1), *i1 = std::min(*i0 + 1, from - 1);
            return at - *i0;
        };
        y0.resize(h), y1.resize(h), y_share.resize(h), hat.assign(grid_w * row_width, 0);
        for (int i = 0; i < h; i++) y_share[i] = place(i, grid_h, h, &y0[i], &y1[i]);
        for (int i = 0, i0, i1; i < w; i++) {
            const float share = place(i, grid_w, w, &i0, &i1);
            hat[i0 * row_width + i] += 1 - share, hat[i1 * row_width + i] += share;
        }
    }

    void clear_gaps(float* planes, int count) const {
        for (int c = 0; c < count; c++, planes += stride) {
            for (int i = 0; i < h; i++) planes[i * pitch] = planes[i * pitch + 1] = planes[i * pitch + 2] = 0;
            memset(planes + h * pitch, 0, (body - h * pitch) * sizeof(float));
        }
    }
    void add_sums(const float* planes, long stride, int count, long pixels, float (*sum)[LANES]) const {
        for (int c = 0; c < count; c++) {
            Vec s = load(sum[c]), s2 = set(0);
            for (long p = 0; p < pixels; p += 2 * LANES) s += load(planes + c * stride + p), s2 += load(planes + c * stride + p + LANES);
            store(sum[c], s + s2);
        }
    }
    // A convolution of whole planes.
    template <int N, int K, class F>
    void convolve(const Map<F, N, K, 9>& map, float* in, const long* taps, float* to) {
        const Planes<float> units = F::inputs(whole(in), K, body, whole(inputs_scratch));
        for (long q = 0; q < body; q += PART) map.apply(units.from(q), taps, whole(to).from(q), PART);
    }
    // The gradient of a convolution's weights.
    template <int SIGN, class F, int ROWS, int COLUMNS>
    void add_gradient(Sum<F, ROWS, COLUMNS, 9>& sum, float* rows, float* columns) {
        const Planes<typename F::Element> elements = F::rows(whole(rows), ROWS, body, whole(rows_scratch));
        for (long q = 0; q < body; q += PART)
            sum.template add<SIGN>(elements.from(q), SIGN > 0 ? shift : back, F::columns(whole(columns).from(q), COLUMNS, PART, columns_scratch), PART);
    }

    // ---- forward ----

    void head(const float* image, const Weights<Format>& weights) {
        for (int c = 0; c < IN; c++) for (int i = 0; i < h; i++) memcpy(x + c * stride + i * pitch + 3, image + (c * h + i) * w, w * sizeof(float));
        convolve(weights.conv_1, x, shift, block[0].in);
        clear_gaps(block[0].in, C);
    }
    // dwconv, LayerNorm, and ESA's two narrow maps of it. In the gaps normal and rstd are 0.
    void normalise(const BlockWeights<Format>& weights, Saved& b) {
        for (int c = 0; c < C; c++)
            depthwise<Format>(b.in + c * stride + 3, pitch, h, w, weights.dwconv[c], weights.dwconv_bias[c], nullptr, b.normal + c * stride + 3, plane_scratch);
        for (long q = 0; q < body; q += LANES) layer_norm(b.normal + q, b.rstd + q);
        clear_gaps(b.rstd, 1), clear_gaps(b.normal, C);
        for (long q = 0; q < body; q += PART) {
            const Planes<float> units = Format::inputs(whole(b.normal + q), C, PART, part(part_scratch));
            weights.narrow.apply(units, nullptr, whole(b.narrow + q), PART);
        }
    }
    INLINE void layer_norm(float* p, float* rstd) const {
        Vec mean = set(0), variance = set(0);
        for (int c = 0; c < C; c++) mean += load(p + c * stride);
        mean *= set(1.f / C);
        for (int c = 0; c < C; c++) {
            const Vec d = load(p + c * stride) - mean;
            variance = fma(d, d, variance);
        }
        const Vec scale = set(1) / vsqrt(fma(variance, set(1.f / C), set(LAYER_NORM_EPS)));
        store(rstd, scale);
        for (int c = 0; c < C; c++) store(p + c * stride, (load(p + c * stride) - mean) * scale);
    }
    // ESA's coarse grid, added to conv_f(conv1), which gives conv4's input.
    void add_grid(const BlockWeights<Format>& weights, Saved& b) {
        // conv2 has stride 2: even and odd columns apart, its taps are shifts.
        const long odd = (long)E * h * conv2_pitch;
        for (int e = 0; e < E; e++) for (int i = 0; i < h; i++) {
            const float* from = b.narrow + e * stride + i * pitch + 3;
            float* to = even_odd + (e * h + i) * conv2_pitch;
            for (int j = 0; j <= w / 2; j++) to[j] = from[2 * j], to[odd + j] = from[2 * j + 1];
        }
        long taps[9];
        for (int t = 0; t < 9; t++) taps[t] = t / 3 * conv2_pitch + (t % 3 == 1 ? odd : t % 3 / 2);
        const long plane = (long)conv2_h * conv2_pitch;
        for (int i = 0; i < conv2_h; i++)
            weights.conv2.apply({even_odd + 2 * i * conv2_pitch, (long)h * conv2_pitch}, taps, {conv2_out + i * conv2_pitch, plane}, up(conv2_w, 2 * LANES));
        for (int e = 0; e < E; e++) for (int i = 0; i < grid_h; i++) pool_row(conv2_out + e * plane, i, e, b);
        each_cell([&](int cell, auto each_neighbour) {
            float sum[E];
            memcpy(sum, weights.conv3_bias, sizeof sum);
            each_neighbour([&](int from, int t) {
                for (int i = 0; i < E; i++) for (int o = 0; o < E; o++) sum[o] += b.pooled[from * E + i] * weights.conv3[t][i][o];
            });
            memcpy(grid + cell * E, sum, sizeof sum);
        });
        for (int i = 0; i < grid_h; i++) for (int e = 0; e < E; e++) for (int j = 0; j < row_width; j += LANES) {
            Vec sum = set(0);
            for (int k = 0; k < grid_w; k++) sum = fma(set(grid[(i * grid_w + k) * E + e]), load(&hat[k * row_width + j]), sum);
            store(grid_rows + (i * E + e) * row_width + j, sum);
        }
        for (int e = 0; e < E; e++) for (int i = 0; i < h; i++) {
            const float *above = grid_rows + (y0[i] * E + e) * row_width, *below = grid_rows + (y1[i] * E + e) * row_width;
            float* s = b.narrow + (E + e) * stride + i * pitch + 3;
            for (int j = 0; j < w; j += LANES) {
                const Vec a = load(above + j);
                store_first(s + j, load(s + j) + fma(load(below + j) - a, set(y_share[i]), a), least(w - j, LANES));
            }
        }
    }
    // A row of cells of one channel: the first of the greatest values in reading order, as PyTorch takes it.
    void pool_row(const float* plane, int row, int e, Saved& b) {
        const int first = row * POOL_STRIDE;
        float *values = pool_columns, *rows = pool_columns + conv2_pitch;
        for (int x = 0; x < conv2_w; x += LANES) {
            Vec best = load(plane + first * conv2_pitch + x), at = set(0);
            for (int dy = 1; dy < POOL; dy++) {
                const Vec v = load(plane + (first + dy) * conv2_pitch + x), less = best - v;
                at = where_negative(less, set(dy), at), best = vmax(best, v);
            }
            store(values + x, best), store(rows + x, at);
        }
        for (int j = 0; j < grid_w; j++) {
            int best = j * POOL_STRIDE;
            for (int x = best + 1; x < j * POOL_STRIDE + POOL; x++)
                if (values[x] > values[best] || (values[x] == values[best] && rows[x] < rows[best])) best = x;
            b.pooled[(row * grid_w + j) * E + e] = values[best];
            b.pool_from[(row * grid_w + j) * E + e] = (first + (int)rows[best]) * conv2_pitch + best;
        }
    }
    // Calls f(cell, each_neighbour) for each cell of the grid; each_neighbour(g) calls g(neighbour, tap) for those in the grid.
    template <class F>
    INLINE void each_cell(F f) const {
        for (int i = 0; i < grid_h; i++) for (int j = 0; j < grid_w; j++) f(i * grid_w + j, [&](auto g) {
            for (int t = 0; t < 9; t++) {
                const int y = i + t / 3 - 1, x = j + t % 3 - 1;
                if (y >= 0 && y < grid_h && x >= 0 && x < grid_w) g(y * grid_w + x, t);
            }
        });
    }
    // GROUP channels of f1, f2, f3 and conv4 at PART pixels: to[4][GROUP][PART].
    INLINE void wide_maps(const BlockWeights<Format>& weights, Planes<float> normal, Planes<float> s, int group, float* to) const {
        for (int i = 0; i < 3; i++) weights.f[group][i].apply(normal, nullptr, part(to + i * GROUP * PART), PART);
        weights.conv4[group].apply(s, nullptr, part(to + 3 * GROUP * PART), PART);
    }
    // t = relu6(f1) f2 + f3 sigmoid(conv4), and g of it.
    void gate(const BlockWeights<Format>& weights, Saved& b) {
        constexpr int GP = GROUP * PART;
        for (long q = 0; q < body; q += PART) {
            const Planes<float> normal = Format::inputs(whole(b.normal + q), C, PART, part(part_scratch));
            const Planes<float> s = Format::inputs(whole(b.narrow + E * stride + q), E, PART, part(part_scratch2));
            for (int j = 0; j < GROUPS; j++) {
                wide_maps(weights, normal, s, j, maps);
                for (int n = 0; n < GROUP; n += 2) for (int i = 0; i < PART; i += LANES) {
                    Vec t[2];
                    UNROLL for (int k = 0; k < 2; k++) {
                        const float* m = maps + (n + k) * PART + i;
                        t[k] = fma(vmin(vmax(load(m), set(0)), set(6)), load(m + GP), load(m + 2 * GP) * sigmoid(load(m + 3 * GP)));
                    }
                    Format::put_inputs(t_inputs + i, PART, j * GROUP + n, t[0], t[1]);
                }
            }
            weights.g.apply(part(t_inputs), nullptr, whole(b.gated + q), PART);
        }
        clear_gaps(b.gated, C);
    }
    void cab(const BlockWeights<Format>& weights, Saved& b, float* y) {
        convolve(weights.cab0, b.u, shift, b.inner);
        for (int r = 0; r < R; r++) for (long q = 0; q < body; q += LANES) {
            Vec value, slope;
            gelu(load(b.inner + r * stride + q), &value, &slope);
            store(b.inner + r * stride + q, value), store(b.slope + r * stride + q, slope);
        }
        clear_gaps(b.inner, R), clear_gaps(b.slope, R);
        convolve(weights.cab2, b.inner, shift, y);
        clear_gaps(y, C);
        float lanes[C][LANES] = {};
        add_sums(y, stride, C, body, lanes);
        for (int c = 0; c < C; c++) b.mean[c] = total(lanes[c]) / (h * w);
        for (int i = 0; i < Q; i++) {
            float sum = weights.squeeze_bias[i];
            for (int c = 0; c < C; c++) sum += weights.squeeze[i][c] * b.mean[c];
            b.squeezed[i] = std::max(sum, 0.f);
        }
        for (int c = 0; c < C; c++) {
            float sum = weights.excite_bias[c];
            for (int i = 0; i < Q; i++) sum += weights.excite[c][i] * b.squeezed[i];
            b.attention[c] = 1 / (1 + expf(-sum));
            const Vec a = set(b.attention[c]);
            for (long q = 0; q < body; q += LANES) store(y + c * stride + q, load(y + c * stride + q) * a);
        }
    }
    void tail(const Weights<Format>& weights) {
        convolve(weights.conv_2, y, shift, first_sum);
        for (long i = 0; i < C * stride; i += LANES) store(first_sum + i, load(first_sum + i) + load(block[0].in + i));
        clear_gaps(first_sum, C);
        convolve(weights.upsampler, first_sum, shift, out);
    }
    float* block_output(int i) { return i + 1 < BLOCKS ? block[i + 1].in : y; }
    void forward(const float* image, const Weights<Format>& weights, Clock& clock) {
        head(image, weights);
        clock.done(HEAD);
        for (int i = 0; i < BLOCKS; i++) {
            Saved& b = block[i];
            const BlockWeights<Format>& bw = weights.block[i];
            normalise(bw, b);
            clock.done(DW_LN);
            add_grid(bw, b);
            clock.done(GRID);
            gate(bw, b);
            clock.done(GATE);
            for (int c = 0; c < C; c++)
                depthwise<Format>(b.gated + c * stride + 3, pitch, h, w, bw.dwconv2[c], bw.dwconv2_bias[c], b.in + c * stride + 3, b.u + c * stride + 3,
                                  plane_scratch);
            clock.done(DW2);
            cab(bw, b, block_output(i));
            clock.done(CAB);
        }
        tail(weights);
        clock.done(TAIL);
    }

    // ---- loss ----

    // Pixel (y, x) of output channel o in an image [IN][h * SCALE][w * SCALE].
    long in_image(int o, int y, int x) const {
        const int channel = o / (SCALE * SCALE), dy = o / SCALE % SCALE, dx = o % SCALE;
        return ((long)(channel * h + y) * SCALE + dy) * w * SCALE + x * SCALE + dx;
    }
    void put_image(float* image) const {
        for (int o = 0; o < OUT; o++) for (int i = 0; i < h; i++) {
            const float* from = out + o * stride + i * pitch + 3;
            float* to = image + in_image(o, i, 0);
            for (int j = 0; j < w; j++) to[j * SCALE] = from[j];
        }
    }
    // Fills g_out. Returns the sample's share of the batch's loss.
    double set_loss(const float* target, const Loss& loss) {
        for (int o = 0; o < OUT; o++) for (int i = 0; i < h; i++) {
            const float* from = target + in_image(o, i, 0);
            float* to = g_out + o * stride + i * pitch + 3;
            for (int j = 0; j < w; j++) to[j] = from[j * SCALE];
        }
        if (loss.given) return 0;
        const double values = (double)OUT * h * w;
        float factor = 0;
        double sum = 0;
        if (loss.psnr != 0) {
            double squares = 0;
            each_error([&](Vec d, float*, int) { squares += sum_lanes(d * d); });
            sum += loss.psnr * 10 * log10(squares / values) * values;
            factor = loss.psnr * 20 / log(10) * values / squares;
        }
        const Vec scale = set(1 / (loss.batch * values)), l1 = set(loss.l1), charbonnier = set(loss.charbonnier), square = set(factor);
        const Vec eps = set(std::max(loss.eps * loss.eps, 1e-30f));
        each_error([&](Vec d, float* to, int n) {
            const Vec size = vabs(d), length = vsqrt(fma(d, d, eps)), sign = where_negative(d, set(-1), where_negative(set(0) - d, set(1), set(0)));
            store_first(to, scale * fma(l1, sign, d * (charbonnier / length + square)), n);
            alignas(64) float values[LANES];
            store(values, fma(l1, size, charbonnier * length));
            for (int i = 0; i < n; i++) sum += values[i];
        });
        return sum / (loss.batch * values);
    }
    // Calls f(out - target, place of the gradient, valid lanes).
    template <class F>
    INLINE void each_error(F f) {
        for (int o = 0; o < OUT; o++) for (int i = 0; i < h; i++) for (int j = 0; j < w; j += LANES) {
            const long at = o * stride + i * pitch + 3 + j;
            const int n = least(w - j, LANES);
            f(load_first(out + at, n) - load_first(g_out + at, n), g_out + at, n);
        }
    }

    // ---- backward, in backward.h ----

    void tail_back(const Weights<Format>& weights, Gradients<Format>& g);
    void cab_back(const BlockWeights<Format>& weights, Saved& b, float* y, BlockGradients<Format>& g);
    INLINE void gate_back_channels(int group, int n, BlockGradients<Format>& g);
    void gate_back(const BlockWeights<Format>& weights, Saved& b, BlockGradients<Format>& g, Clock& clock);
    void grid_back(const BlockWeights<Format>& weights, Saved& b, BlockGradients<Format>& g);
    void normalise_back(const BlockWeights<Format>& weights, Saved& b, BlockGradients<Format>& g);
    INLINE void layer_norm_back(float* p, const float* normal, const float* rstd) const;
    void depthwise_gradients(float* in, float* g, float (*sum)[49][LANES], float (*bias)[LANES]);
    void head_back(Gradients<Format>& g);
    void backward(const Weights<Format>& weights, Gradients<Format>& g, Clock& clock);
};
