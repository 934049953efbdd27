// Shared by all kernels: types, the network's sizes, and every operation beyond arithmetic.
//
// The same source is compiled for GPUs and, with HASN_EMULATED, as C++ for the host, where `emulated.h` implements
// the operations below and checks their use. A kernel therefore accesses device memory, other lanes and tensor cores
// only through these operations, and needs no header of the CUDA toolkit.
//
// Feature maps are f16, [H, W, C] with C padded to a multiple of 8, so that a pixel is a number of 16-byte words.
// Padding channels are zero, and so are their weights.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
// The bits of an f16; no arithmetic is done on them.
typedef u16 half;

#ifdef HASN_EMULATED
#include "emulated.h"
#else

// Marks a function that kernels call.
#define DEVICE __device__ __forceinline__

// Defines a kernel: name, type of its one argument, threads per block, body that uses `args`.
#define KERNEL(name, Args, threads, ...)                                                                               \
    extern "C" __global__ void __launch_bounds__(threads) name(const Args args) { __VA_ARGS__; }

// Synchronises all threads of the block and makes their writes to shared memory visible.
#define BARRIER() __syncthreads()

// Returns the block's dynamic shared memory.
DEVICE u8 *shared_memory() {
    extern __shared__ __align__(16) u8 bytes[];
    return bytes;
}

// All reads and writes of device memory. T has 1 to 16 bytes and is aligned.
template <class T> DEVICE T load(const T *from) { return *from; }
template <class T> DEVICE void store(T *to, T value) { *to = value; }

// Copies 16 bytes from device to shared memory, or writes zeros if not `inside`; `from` is a valid address in both cases.
// The bytes are visible to this thread after copy_async_wait, to other threads after a following barrier.
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

// Returns the value of lane `lane ^ mask`. All 32 lanes take part.
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// Converts two f16 in one word to f32 and back, rounding to nearest.
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

// 2^x, 1 / x and x^-1/2 by the special function unit, with a relative error of at most 2^-22.
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

// Loads four 8x8 f16 matrices from shared memory, one register each: lane l passes the address of row l % 8 of matrix
// l / 8 (16 bytes, aligned) and receives, of each matrix, elements 2 · (l % 4) and the next of row l / 4. All 32 lanes
// take part.
DEVICE void load_matrices(u32 (&r)[4], const half *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}
// Loads two matrices; lanes 0 to 15 pass the row addresses, those of the other lanes are ignored.
DEVICE void load_matrices(u32 (&r)[2], const half *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

// d += a b for a: [16, 8], b: [8, 8], d: [16, 8] in f32. Lane l holds rows l / 4 and l / 4 + 8, columns 2 · (l % 4) and
// the next, of a; column l / 4, rows 2 · (l % 4) and the next, of b; the rows and columns of a, of d: d[0] and d[1] in
// the upper row, d[2] and d[3] in the lower one. All 32 lanes take part.
DEVICE void multiply_add(float (&d)[4], u32 a0, u32 a1, u32 b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(b));
}
// The same for a: [16, 16] and b: [16, 8]: a[0], a[1] and b[0] are the first 8 elements of the summed dimension.
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

// Threads per block, in every kernel.
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// Storage types of a frame's samples, and byte swaps.
enum Word { WORD_U8, WORD_U16, WORD_F32 };
DEVICE u32 swap16(u32 v) { return (v >> 8 & 0xff) | (v & 0xff) << 8; }
DEVICE u32 swap32(u32 v) { return swap16(v >> 16) | swap16(v & 0xffff) << 16; }

// Channel counts that kernels are compiled for, multiples of 8 (M: of 16): C of the trunk, M of f1, f2 and f3, E of the
// spatial attention, R between the 3x3 convs. `ROWS`: rows of a tile in kernels that read neighbouring pixels.
struct Lite {
    static constexpr int C = 16, M = 32, E = 8, R = 8, ROWS = 16;
};
struct Paper {
    static constexpr int C = 56, M = 160, E = 16, R = 24, ROWS = 16;
};
// Any network up to these sizes, with padded channels.
struct Wide {
    static constexpr int C = 64, M = 256, E = 32, R = 64, ROWS = 8;
};

// Defines a kernel of the network for each of the sizes: name_lite, name_paper and name_wide call name<Size>.
#define NETWORK_KERNEL(name, Args)                                                                                     \
    KERNEL(name##_lite, Args, THREADS, name<Lite>(args))                                                               \
    KERNEL(name##_paper, Args, THREADS, name<Paper>(args))                                                             \
    KERNEL(name##_wide, Args, THREADS, name<Wide>(args))
