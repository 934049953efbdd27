// Cycles of each part of a step, for bench.py.
#pragma once
#include <stdint.h>
#include <x86intrin.h>

#include <atomic>

enum Part {
    HEAD, DW_LN, GRID, GATE, DW2, CAB, TAIL, BACK_TAIL, BACK_CAB, BACK_DW_W, BACK_DW, BACK_GATE, BACK_F, BACK_GATE_W, BACK_GRID,
    BACK_LN, LOSS, PACK, PUT, PARTS
};
constexpr const char* PART_NAMES =
    "head dwconv+ln grid gate+g dwconv2 cab tail <tail <cab <dw.weights <dw <gate <f <gate.weights <grid <ln loss pack put";

inline std::atomic<uint64_t> spent[PARTS];

struct Clock {
    uint64_t from = __rdtsc();
    void done(Part part) {
        const uint64_t now = __rdtsc();
        spent[part].fetch_add(now - from, std::memory_order_relaxed);
        from = now;
    }
};
