// The operations of `common.cuh` on the host, for tests of the kernels without a GPU.
//
// A thread of a block is a fiber. It runs until it must synchronise with the 32 lanes of its warp or with all threads of
// its block. The launch chooses the order of threads in between, so that a missing synchronisation shows. Device memory is
// accessed through `load`, `store` and `copy_async`, which check addresses.
//
// This file must not know what a kernel computes.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <immintrin.h>

struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

namespace emulated {

struct Index {
    unsigned x, y, z;
};

// The built-in variables of a thread: those of its block, and its own.
struct Block {
    Index index, threads, grid;
    u8 *shared;
    // Totals of the launch so far.
    u64 special_functions, conversions;
};
struct Here {
    Index thread;
    Block *block;
};
// Indices are a kernel's most frequent access: a pointer costs one load, and each library takes only 8 bytes of the
// process's static TLS space.
extern __thread Here *here __attribute__((tls_model("initial-exec")));

// Operations of all 32 lanes of a warp, and the operand of one lane.
enum WarpOp { SHUFFLE, LOAD_TWO, LOAD_FOUR, MULTIPLY_8, MULTIPLY_16 };
struct Shuffle {
    float value;
    int mask;
    float result;
};
struct Load {
    const u16 *row;
    u32 *result;
};
struct Multiply {
    float *d;
    u32 a[4], b[2];
};
void join_warp(WarpOp, void *operand);

// `where` identifies a barrier of the kernel; file and line are for error messages.
void barrier(int where, const char *file, int line);

// Whether the access to device memory is valid. If not, the launch fails.
enum Access { READ, WRITE };
bool allowed(const void *address, size_t len, Access);
void copy(void *to, const void *from, bool inside);
void finish_copies();

// Registers a kernel; every KERNEL defines one.
struct Kernel {
    Kernel(const char *name, size_t args_len, unsigned threads, void (*run)(const void *args));
    const char *name;
    size_t args_len;
    unsigned threads;
    void (*run)(const void *args);
};

} // namespace emulated

#define threadIdx (emulated::here->thread)
#define blockIdx (emulated::here->block->index)
#define blockDim (emulated::here->block->threads)
#define gridDim (emulated::here->block->grid)

#define DEVICE inline
#define KERNEL(name, Args, threads, ...)                                                                               \
    static const emulated::Kernel kernel_##name(#name, sizeof(Args), threads, [](const void *bytes) {                  \
        const Args &args = *static_cast<const Args *>(bytes);                                                          \
        __VA_ARGS__;                                                                                                   \
    });
#define BARRIER() emulated::barrier(__COUNTER__, __FILE__, __LINE__)

inline u8 *shared_memory() { return emulated::here->block->shared; }

template <class T> T load(const T *from) {
    T value{};
    if (emulated::allowed(from, sizeof(T), emulated::READ)) {
        memcpy(&value, from, sizeof(T));
    }
    return value;
}
template <class T> void store(T *to, T value) {
    if (emulated::allowed(to, sizeof(T), emulated::WRITE)) {
        memcpy(to, &value, sizeof(T));
    }
}
inline void copy_async(void *to, const void *from, bool inside) { emulated::copy(to, from, inside); }
inline void copy_async_wait() { emulated::finish_copies(); }

inline float shuffle_xor(float value, int mask) {
    emulated::Shuffle operand{value, mask, 0.0f};
    emulated::join_warp(emulated::SHUFFLE, &operand);
    return operand.result;
}

inline float2 unpack(u32 pair) {
    // The scheduler also calls this, outside any thread.
    if (emulated::here) {
        emulated::here->block->conversions += 2;
    }
    return {_cvtsh_ss((u16)pair), _cvtsh_ss((u16)(pair >> 16))};
}
inline u32 pack(float low, float high) {
    emulated::here->block->conversions += 2;
    return _cvtss_sh(low, _MM_FROUND_TO_NEAREST_INT) | (u32)_cvtss_sh(high, _MM_FROUND_TO_NEAREST_INT) << 16;
}

inline float special(float value) {
    ++emulated::here->block->special_functions;
    return value;
}
inline float exp2(float x) { return special(exp2f(x)); }
inline float reciprocal(float x) { return special(1.0f / x); }
inline float reciprocal_root(float x) { return special(1.0f / sqrtf(x)); }

inline void load_matrices(u32 (&r)[4], const half *row) {
    emulated::Load operand{row, r};
    emulated::join_warp(emulated::LOAD_FOUR, &operand);
}
inline void load_matrices(u32 (&r)[2], const half *row) {
    emulated::Load operand{row, r};
    emulated::join_warp(emulated::LOAD_TWO, &operand);
}
inline void multiply_add(float (&d)[4], u32 a0, u32 a1, u32 b) {
    emulated::Multiply operand{d, {a0, a1}, {b}};
    emulated::join_warp(emulated::MULTIPLY_8, &operand);
}
inline void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    emulated::Multiply operand{d, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    emulated::join_warp(emulated::MULTIPLY_16, &operand);
}
