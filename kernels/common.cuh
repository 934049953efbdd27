// What all kernels share: types, the network's sizes, and every operation that is more than arithmetic.
//
// The same source is built for GPUs and, with HASN_EMULATED, as C++ for the host, where `emulated.h` gives the
// operations below a host version that checks how they are used. So a kernel touches memory of the device, other
// lanes and tensor cores through these only, and needs no header of the CUDA toolkit.
//
// Maps are f16, [H, W, C] with C padded to a multiple of 8, so that a pixel is whole 16-byte words. What is padded is
// zero, as are its weights.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
// Bits of an f16: there is no arithmetic in it.
typedef u16 half;

#ifdef HASN_EMULATED
#include "emulated.h"
#else

// A function that kernels call.
#define DEVICE __device__ __forceinline__

// A kernel: its name, its one argument, the threads of a block, what it does with `args`.
#define KERNEL(name, Args, threads, ...)                                                                               \
    extern "C" __global__ void __launch_bounds__(threads) name(const Args args) { __VA_ARGS__; }

// All threads of the block meet here, and see what the others wrote to shared memory.
#define BARRIER() __syncthreads()

// The block's dynamic shared memory.
DEVICE u8 *shared_memory() {
    extern __shared__ __align__(16) u8 bytes[];
    return bytes;
}

// All reads and writes of device memory. T is 1 to 16 bytes and aligned.
template <class T> DEVICE T load(const T *from) { return *from; }
template <class T> DEVICE void store(T *to, T value) { *to = value; }

// 16 bytes from device to shared memory, zeros where not `inside`; `from` is an address of the map even then. They are
// there for this thread after copy_async_wait, for the others after a barrier behind it.
DEVICE void copy_async(void *to, const void *from, bool inside) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from),
                 "r"(inside ? 16 : 0)
                 : "memory");
#else
    *(uint4 *)to = inside ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
#endif
}
DEVICE void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// The value of the lane whose number differs by `mask`. All 32 lanes take part.
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// Two f16 of one word, and back, to the nearest.
DEVICE float2 unpack(u32 pair) {
    float2 r;
    asm("{.reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(r.x), "=f"(r.y) : "r"(pair));
    return r;
}
DEVICE u32 pack(float low, float high) {
    u32 r;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
    asm("{.reg .f16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}" : "=r"(r) : "f"(low), "f"(high));
#endif
    return r;
}

// 2^x, 1 / x and x^-1/2 of the special function unit, to 2^-22 of their value or better.
DEVICE float exp2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEVICE float reciprocal(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEVICE float reciprocal_root(float x) {
    float r;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// Four 8x8 matrices of f16 from shared memory, a register each: lane l names the row l % 8 of matrix l / 8 (16 bytes,
// aligned) and gets of each matrix, row lane / 4, the elements 2 · (lane % 4) and the next. All 32 lanes take part.
DEVICE void load_matrices(u32 (&r)[4], const half *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}
// Two of them; the rows are named by lanes 0 to 15, what the others name is not read.
DEVICE void load_matrices(u32 (&r)[2], const half *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

// d += a b for a: [16, 8], b: [8, 8], d: [16, 8] in f32. Lane l holds of a rows l / 4 and l / 4 + 8, columns
// 2 · (l % 4) and the next; of b column l / 4, rows 2 · (l % 4) and the next; of d rows as a, columns as a: d[0] and
// d[1] of the upper row, d[2] and d[3] of the lower one. All 32 lanes take part.
DEVICE void multiply_add(float (&d)[4], u32 a0, u32 a1, u32 b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(b));
}
// The same for a: [16, 16] and b: [16, 8]: a[0], a[1] and b[0] are the first 8 of what is summed over.
DEVICE void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    multiply_add(d, a[0], a[1], b0);
    multiply_add(d, a[2], a[3], b1);
#endif
}
#endif

// Threads of a block, of every kernel.
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// How a sample of a picture is kept, and its bytes the other way round.
enum Word { WORD_U8, WORD_U16, WORD_F32 };
DEVICE u32 swap16(u32 v) { return (v >> 8 & 0xff) | (v & 0xff) << 8; }
DEVICE u32 swap32(u32 v) { return swap16(v >> 16) | swap16(v & 0xffff) << 16; }

// The sizes a kernel is built for, each a multiple of 8 (M of 16): C, the trunk; M, the three maps; E, the spatial
// attention; R, between the 3x3 convs. `ROWS`: rows of a tile where a block reads its neighbours' pixels.
struct Lite {
    static constexpr int C = 16, M = 32, E = 8, R = 8, ROWS = 16;
};
struct Paper {
    static constexpr int C = 56, M = 160, E = 16, R = 24, ROWS = 16;
};
// Any network that fits, its channels padded.
struct Wide {
    static constexpr int C = 64, M = 256, E = 32, R = 64, ROWS = 8;
};

// A kernel of the network, for each of the sizes: name_lite, name_paper and name_wide call name<Size>.
#define NETWORK_KERNEL(name, Args)                                                                                     \
    KERNEL(name##_lite, Args, THREADS, name<Lite>(args))                                                               \
    KERNEL(name##_paper, Args, THREADS, name<Paper>(args))                                                             \
    KERNEL(name##_wide, Args, THREADS, name<Wide>(args))
