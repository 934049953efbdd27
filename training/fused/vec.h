// A vector of floats of the level that the file is compiled for, and the functions of the network on it.
//
// LANES is 16 with AVX-512 and 8 with AVX2. Operators + - * are the compiler's own.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

#ifdef __AVX512F__
typedef __m512 Vec;
constexpr int LANES = 16, REGISTERS = 32;
INLINE Vec set(float x) { return _mm512_set1_ps(x); }
INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
// The first n lanes; the others are 0, or stay as they are.
INLINE Vec load_first(const float* p, int n) { return _mm512_maskz_loadu_ps((1u << n) - 1, p); }
INLINE void store_first(float* p, Vec x, int n) { _mm512_mask_storeu_ps(p, (1u << n) - 1, x); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE Vec vmin(Vec a, Vec b) { return _mm512_min_ps(a, b); }
INLINE Vec vmax(Vec a, Vec b) { return _mm512_max_ps(a, b); }
INLINE Vec vabs(Vec a) { return _mm512_abs_ps(a); }
INLINE Vec vsqrt(Vec a) { return _mm512_sqrt_ps(a); }
INLINE Vec estimate_reciprocal(Vec x) { return _mm512_rcp14_ps(x); }
INLINE Vec where_equal(Vec a, Vec b, Vec x) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), x); }
INLINE Vec where_negative(Vec a, Vec x, Vec other) { return _mm512_mask_mov_ps(other, _mm512_cmp_ps_mask(a, set(0), _CMP_LT_OQ), x); }
// 2^n * x of whole n from -126 to 127.
INLINE Vec scale_by_power(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }
INLINE Vec nearest(Vec x) { return _mm512_roundscale_ps(x, 8); }
INLINE float sum_lanes(Vec x) { return _mm512_reduce_add_ps(x); }
INLINE void transpose(Vec* rows) {
    __m512i *r = (__m512i*)rows, t[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 16; i += 8) UNROLL for (int j = 0; j < 4; j++) {
        t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
        t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
    }
    UNROLL for (int j = 0; j < 8; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
    }
}
#else
typedef __m256 Vec;
constexpr int LANES = 8, REGISTERS = 16;
INLINE Vec set(float x) { return _mm256_set1_ps(x); }
INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
INLINE void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
INLINE __m256i first_lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
INLINE Vec load_first(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
INLINE void store_first(float* p, Vec x, int n) { _mm256_maskstore_ps(p, first_lanes(n), x); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE Vec vmin(Vec a, Vec b) { return _mm256_min_ps(a, b); }
INLINE Vec vmax(Vec a, Vec b) { return _mm256_max_ps(a, b); }
INLINE Vec vabs(Vec a) { return _mm256_andnot_ps(set(-0.f), a); }
INLINE Vec vsqrt(Vec a) { return _mm256_sqrt_ps(a); }
INLINE Vec estimate_reciprocal(Vec x) { return _mm256_rcp_ps(x); }
INLINE Vec where_equal(Vec a, Vec b, Vec x) { return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ), x); }
INLINE Vec where_negative(Vec a, Vec x, Vec other) { return _mm256_blendv_ps(other, x, _mm256_cmp_ps(a, set(0), _CMP_LT_OQ)); }
INLINE Vec scale_by_power(Vec x, Vec n) {
    return x * (Vec)_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
}
INLINE Vec nearest(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE float sum_lanes(Vec x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE void transpose(Vec* r) {
    Vec t[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
        r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
    UNROLL for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x20);
        t[j + 4] = _mm256_permute2f128_ps(r[j], r[j + 4], 0x31);
    }
    UNROLL for (int j = 0; j < 8; j++) r[j] = t[j];
}
#endif

INLINE Vec reciprocal(Vec x) {
    Vec r = estimate_reciprocal(x);
    return r * fnma(x, r, set(2));
}
// 2^x, to 2e-7 of it; below 2^-126 it is 2^-126.
INLINE Vec exp2v(Vec x) {
    x = vmin(vmax(x, set(-126)), set(126));
    Vec n = nearest(x), r = x - n, p = set(1.5403530e-4f);
    p = fma(p, r, set(1.3333558e-3f));
    p = fma(p, r, set(9.6181291e-3f));
    p = fma(p, r, set(5.5504109e-2f));
    p = fma(p, r, set(2.4022651e-1f));
    p = fma(p, r, set(6.9314718e-1f));
    return scale_by_power(fma(p, r, set(1)), n);
}
INLINE Vec sigmoid(Vec x) { return reciprocal(set(1) + exp2v(x * set(-1.44269504f))); }
// GELU and its derivative. erf by Abramowitz and Stegun 7.1.26, to 1.5e-7.
INLINE void gelu(Vec x, Vec* value, Vec* slope) {
    Vec e = exp2v(x * x * set(-0.5f * 1.44269504f));
    Vec t = reciprocal(fma(vabs(x), set(0.3275911f * 0.70710678f), set(1)));
    Vec p = fma(set(1.061405429f), t, set(-1.453152027f));
    p = fma(p, t, set(1.421413741f));
    p = fma(p, t, set(-0.284496736f));
    p = fma(p, t, set(0.254829592f));
    Vec tail = p * t * e * set(0.5f);  // 1 - Phi(|x|)
    Vec phi = where_negative(x, tail, set(1) - tail);
    *value = x * phi;
    *slope = fma(x * e, set(0.39894228f), phi);
}
