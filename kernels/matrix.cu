// R'G'B' to Y'CbCr and back: a 3x3 matrix over three planes, in place.
//
// planes: [3, len] f32; (a, b, c) of a pixel becomes rows · (a, b, c).
// Grid: (len / 256); one pixel per thread.
// Shared memory: none.
// Bound: memory, 15 FLOP for 24 bytes per pixel.
// Twin: pixel::matrix::apply
#include "common.cuh"

struct Matrix {
    float *planes;
    u64 len;
    float rows[9];
};

DEVICE void matrix_pixel(const Matrix &args) {
    const u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (i >= args.len) {
        return;
    }
    float *a = args.planes + i, *b = a + args.len, *c = b + args.len;
    const float x = load(a), y = load(b), z = load(c);
    const float *m = args.rows;
    store(a, m[0] * x + m[1] * y + m[2] * z);
    store(b, m[3] * x + m[4] * y + m[5] * z);
    store(c, m[6] * x + m[7] * y + m[8] * z);
}

KERNEL(matrix, Matrix, THREADS, matrix_pixel(args))
