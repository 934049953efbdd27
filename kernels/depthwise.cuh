// Depthwise 7x7 conv in f32 on CUDA cores: a thread computes two channels of a strip of pixels.
#pragma once
#include "common.cuh"

// sums[i] += dw of pixel i, for the pixels of a strip. `pixels`: the two channels of the upper left pixel of the strip's
// window, in a tile with rows of WIDTH pixels, PIXEL elements apart; taps: [7, 7, C], from these two channels on.
template <int C, int WIDTH, int PIXEL, int STRIP>
DEVICE void slide(float2 (&sums)[STRIP], const half *pixels, const float *taps) {
#pragma unroll 1
    for (int dy = 0; dy < 7; ++dy) {
        float2 row[7];
#pragma unroll
        for (int dx = 0; dx < 7; ++dx) {
            row[dx] = load((const float2 *)(taps + (dy * 7 + dx) * C));
        }
#pragma unroll
        for (int i = 0; i < STRIP + 6; ++i) {
            const float2 v = unpack(*(const u32 *)(pixels + (dy * WIDTH + i) * PIXEL));
#pragma unroll
            for (int dx = 0; dx < 7; ++dx) {
                if (i >= dx && i - dx < STRIP) {
                    sums[i - dx].x += row[dx].x * v.x;
                    sums[i - dx].y += row[dx].y * v.y;
                }
            }
        }
    }
}
