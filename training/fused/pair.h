// The format Pair of products.h: two bf16 in 32 bits, of two channels (inputs of a Map) or of two pixels (rows and columns of a
// Sum), for CPUs with AVX-512 BF16. Values are rounded to the nearest, sums are f32.
#pragma once
#include "products.h"

// The bits of a bf16, rounded to nearest even.
inline uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
// [a0 .. a15 b0 .. b15] in bf16, and the same as [a0 b0 a1 b1 ..].
INLINE __m512i halves(Vec a, Vec b) { return (__m512i)_mm512_cvtne2ps_pbh(b, a); }
INLINE __m512i side_by_side(__m512i x) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                           19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, x);
}

struct Pair {
    typedef uint16_t Element;
    static constexpr int EACH = 2;
    static constexpr bool ROWS_ARE_INPUTS = false;
    static INLINE Vec product(Vec a, Vec b, Vec sum) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
    static INLINE Vec broadcast(const uint16_t* p) {
        // GCC would load it into a general register.
        Vec x;
        asm("vpbroadcastd %1, %0" : "=v"(x) : "m"(*(const int32_t(*)[1])p));
        return x;
    }
    static void put(float* unit, float first, float second) {
        const uint32_t bits = to_bf16(first) | (uint32_t)to_bf16(second) << 16;
        memcpy(unit, &bits, 4);
    }
    static bool possible() { return true; }
    static void begin() {}
    static void end() {}

    static INLINE void put_inputs(float* units, long stride, int c, Vec a, Vec b) {
        _mm512_storeu_si512(units + c / 2 * stride, side_by_side(halves(a, b)));
    }
    static INLINE void put_rows(uint16_t* rows, long stride, int c, Vec a, Vec b) {
        const __m512i x = halves(a, b);
        _mm256_storeu_si256((__m256i*)(rows + c * stride), _mm512_castsi512_si256(x));
        _mm256_storeu_si256((__m256i*)(rows + (c + 1) * stride), _mm512_extracti64x4_epi64(x, 1));
    }
    static Planes<float> inputs(Planes<float> planes, int channels, long pixels, Planes<float> scratch) {
        for (int c = 0; c < channels; c += 2) for (long p = 0; p < pixels; p += LANES)
            put_inputs(scratch.at + p, scratch.stride, c, load(planes.of(c) + p), c + 1 < channels ? load(planes.of(c + 1) + p) : set(0));
        return scratch;
    }
    static Planes<uint16_t> rows(Planes<float> planes, int channels, long pixels, Planes<float> scratch) {
        const Planes<uint16_t> out = {(uint16_t*)scratch.at, scratch.stride};
        for (int c = 0; c < channels; c++) for (long p = 0; p < pixels; p += 2 * LANES)
            _mm512_storeu_si512(out.of(c) + p, halves(load(planes.of(c) + p), load(planes.of(c) + p + LANES)));
        return out;
    }
    static const float* neighbours(const float* plane, long pixels, float* scratch) {
        for (long p = 0; p < pixels; p += LANES) put_inputs(scratch + p, 0, 0, load(plane + p), load(plane + p + 1));
        return scratch;
    }
    static INLINE Vec load_pixels(const uint16_t* p) { return (Vec)_mm512_loadu_si512(p); }
    static INLINE Vec load_first_pixels(const uint16_t* p, int n) { return (Vec)_mm512_maskz_loadu_epi16((1u << n) - 1, p); }
    static const float* columns(Planes<float> planes, int channels, int pixels, float* out) {
        const int width = up(channels, LANES);
        for (int c = 0; c < width; c += LANES) for (int p = 0; p < pixels; p += 2 * LANES) {
            Vec block[LANES];
            UNROLL for (int i = 0; i < LANES; i++) {
                const float* from = planes.of(c + i) + p;
                block[i] = c + i < channels ? (Vec)halves(load(from), load(from + LANES)) : ::set(0);
            }
            transpose(block);
            UNROLL for (int i = 0; i < LANES; i++) store(out + (p / 2 + i) * width + c, block[i]);
        }
        return out;
    }
};
