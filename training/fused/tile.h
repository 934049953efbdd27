// The format Tile: the layouts of Pair, multiplied by the tiles of AMX, and Map and Sum for it.
//
// A tile is 16 rows of 64 bytes. In a Map, A is 16 outputs x 16 units of weights, B is 16 units x 16 pixels of inputs, C is 16
// outputs x 16 pixels: planes as they are. In a Sum, A is 16 rows x 32 pixels, B is 16 units of two pixels x 16 columns. Four tiles
// of C are computed from two of A and two of B, so that each tile that is loaded serves two products. Bound: TDPBF16PS, 8192
// multiply-adds in 16 cycles, and the loads of tiles, one in 8 cycles.
//
// With STAND_IN tiles are arrays and the products are VDPBF16PS: the same layouts and roundings on CPUs without AMX, for tests.
#pragma once
#include <sys/syscall.h>
#include <unistd.h>

#include "pair.h"

// Strides are in units of 32 bits.
#ifdef STAND_IN
inline thread_local __m512i tiles[8][16];
INLINE void tile_load(int t, const void* p, long stride) {
    for (int r = 0; r < 16; r++) tiles[t][r] = _mm512_loadu_si512((const char*)p + r * stride * 4);
}
INLINE void tile_store(int t, float* p, long stride) {
    for (int r = 0; r < 16; r++) _mm512_storeu_si512(p + r * stride, tiles[t][r]);
}
INLINE void tile_product(int c, int a, int b) {
    for (int m = 0; m < 16; m++) {
        alignas(64) int32_t units[16];
        _mm512_store_si512(units, tiles[a][m]);
        __m512 sum = (__m512)tiles[c][m];
        for (int k = 0; k < 16; k++) sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(units[k]), (__m512bh)tiles[b][k]);
        tiles[c][m] = (__m512i)sum;
    }
}
#define TILE_LOAD(t, p, stride) tile_load(t, p, stride)
#define TILE_STORE(t, p, stride) tile_store(t, p, stride)
#define TILE_PRODUCT(c, a, b) tile_product(c, a, b)
#else
// GCC's intrinsics do not say that they read memory.
#define TILE_LOAD(t, p, stride) asm volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((long)(stride)*4) : "memory")
#define TILE_STORE(t, p, stride) asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"((long)(stride)*4) : "memory")
#define TILE_PRODUCT(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
#endif

struct Tile : Pair {
    // Asks the kernel for the tiles' state, once in a process. False where it is refused.
    static bool possible() {
#ifdef STAND_IN
        return true;
#else
        constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
        return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#endif
    }
    static void begin() {
#ifndef STAND_IN
        struct {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        static_assert(sizeof config == 64);
        asm volatile("ldtilecfg %0" ::"m"(config));
#endif
    }
    static void end() {
#ifndef STAND_IN
        asm volatile("tilerelease" ::);
#endif
    }
};

// 16 or 32 outputs at 32 pixels. weight: [output tile][steps][16][16], weight_tile apart. out_stride is that of the C tiles.
template <int TILES, int TAPS, int KS>
INLINE void map_tiles(const float* in, long in_stride, const long* shift, const float* weight, long weight_tile, const float* start,
                      long start_stride, long start_tile, long start_pixels, float* out, long out_stride) {
    TILE_LOAD(0, start, start_stride);
    TILE_LOAD(1, start + start_pixels, start_stride);
    if (TILES == 2) {
        TILE_LOAD(2, start + start_tile, start_stride);
        TILE_LOAD(3, start + start_tile + start_pixels, start_stride);
    }
    for (int t = 0; t < TAPS; t++) for (int k = 0; k < KS; k++, weight += 256) {
        const float* b = in + (TAPS > 1 ? shift[t] : 0) + k * 16 * in_stride;
        TILE_LOAD(6, b, in_stride);
        TILE_LOAD(4, weight, 16);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, b + 16, in_stride);
        TILE_PRODUCT(1, 4, 7);
        if (TILES == 2) {
            TILE_LOAD(5, weight + weight_tile, 16);
            TILE_PRODUCT(2, 5, 6);
            TILE_PRODUCT(3, 5, 7);
        }
    }
    TILE_STORE(0, out, out_stride);
    TILE_STORE(1, out + 16, out_stride);
    if (TILES == 2) {
        TILE_STORE(2, out + 16 * out_stride, out_stride);
        TILE_STORE(3, out + 16 * out_stride + 16, out_stride);
    }
}

template <int N, int K, int TAPS>
struct Map<Tile, N, K, TAPS> {
    static constexpr int NS = (N + 15) / 16, KS = (K + 31) / 32;
    alignas(64) float weight[NS][TAPS][KS][16][16], bias[NS][16][16];

    template <class F>
    void set(F weight_of, const float* biases = nullptr) {
        for (int n = 0; n < NS * 16; n++) {
            for (int t = 0; t < TAPS; t++) for (int k = 0; k < KS * 32; k += 2) {
                const auto value = [&](int k) { return n < N && k < K ? weight_of(n, k, t) : 0.f; };
                Pair::put(&weight[n / 16][t][k / 32][n % 16][k % 32 / 2], value(k), value(k + 1));
            }
            for (int p = 0; p < 16; p++) bias[n / 16][n % 16][p] = biases && n < N ? biases[n] : 0;
        }
    }
    // Tiles of outputs that are not whole go through a buffer, for planes behind them belong to others.
    template <bool ADD = false>
    void apply(Planes<float> in, const long* shift, Planes<float> out, int pixels) const {
        parts<NS, 2>([&](auto tiles, int first) {
            const int n = first * 16, valid = least(N - n, tiles * 16);
            const bool whole = valid == tiles * 16;
            for (int p = 0; p < pixels; p += 32) {
                alignas(64) float buffer[tiles * 16][32];
                float* to = out.of(n) + p;
                if (ADD && !whole) for (int r = 0; r < valid; r++) memcpy(buffer[r], to + r * out.stride, sizeof buffer[r]);
                float* target = whole ? to : buffer[0];
                const long stride = whole ? out.stride : 32;
                map_tiles<tiles, TAPS, KS>(in.at + p, in.stride, shift, weight[first][0][0][0], TAPS * KS * 256, ADD ? target : bias[first][0],
                                           ADD ? stride : 16, ADD ? 16 * stride : 256, ADD ? 16 : 0, target, stride);
                if (!whole) for (int r = 0; r < valid; r++) memcpy(to + r * out.stride, buffer[r], sizeof buffer[r]);
            }
        });
    }
};

// sum: [16 or 32 rows][16 or 32 columns], `width` apart. Strides of rows in units.
template <int ROW_TILES, int COLUMN_TILES>
INLINE void sum_tiles(const uint16_t* rows, long row_stride, const float* columns, long width, int pixels, float* sum) {
    TILE_LOAD(0, sum, width);
    if (COLUMN_TILES == 2) TILE_LOAD(1, sum + 16, width);
    if (ROW_TILES == 2) TILE_LOAD(2, sum + 16 * width, width);
    if (ROW_TILES == 2 && COLUMN_TILES == 2) TILE_LOAD(3, sum + 16 * width + 16, width);
    for (int p = 0; p < pixels; p += 32, columns += 16 * width) {
        TILE_LOAD(4, rows + p, row_stride);
        TILE_LOAD(6, columns, width);
        TILE_PRODUCT(0, 4, 6);
        if (COLUMN_TILES == 2) {
            TILE_LOAD(7, columns + 16, width);
            TILE_PRODUCT(1, 4, 7);
        }
        if (ROW_TILES == 2) {
            TILE_LOAD(5, rows + 32 * row_stride + p, row_stride);
            TILE_PRODUCT(2, 5, 6);
            if (COLUMN_TILES == 2) TILE_PRODUCT(3, 5, 7);
        }
    }
    TILE_STORE(0, sum, width);
    if (COLUMN_TILES == 2) TILE_STORE(1, sum + 16, width);
    if (ROW_TILES == 2) TILE_STORE(2, sum + 16 * width, width);
    if (ROW_TILES == 2 && COLUMN_TILES == 2) TILE_STORE(3, sum + 16 * width + 16, width);
}

template <int ROWS, int COLUMNS, int TAPS>
struct Sum<Tile, ROWS, COLUMNS, TAPS> {
    static constexpr int WIDTH = up(COLUMNS, 16);
    // Rows behind the last one are sums of whatever lies there, and not read.
    alignas(64) float sum[TAPS][up(ROWS, 16)][WIDTH];

    template <int SIGN = 1>
    void add(Planes<uint16_t> rows, const long* shift, const float* columns, int pixels) {
        parts<WIDTH / 16, 2>([&](auto column_tiles, int c) {
            parts<(ROWS + 15) / 16, 2>([&](auto row_tiles, int r) {
                for (int t = 0; t < TAPS; t++)
                    sum_tiles<row_tiles, column_tiles>(rows.of(r * 16) + (TAPS > 1 ? shift[t] : 0), rows.stride / 2, columns + c * 16, WIDTH,
                                                       pixels, &sum[t][r * 16][c * 16]);
            });
        });
    }
};
