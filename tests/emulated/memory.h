// The state of a device between launches: its allocations, and the stacks of a block's threads.
#pragma once

#include <map>
#include <new>
#include <sys/mman.h>
#include <vector>

namespace emulated {

// Bytes of a device memory transaction.
constexpr size_t SECTOR = 32;

// Counts the sectors touched, with the last block that touched each.
struct Sectors {
    std::vector<u32> last;
    u64 of_launch = 0, of_blocks = 0;
    // Block numbers start at 1 and continue across launches.
    void touch(size_t sector, u32 first_block, u32 block) {
        of_launch += last[sector] < first_block;
        of_blocks += last[sector] != block;
        last[sector] = block;
    }
};

struct Allocation {
    const u8 *start;
    size_t len;
    Sectors touched[2];
    // All blocks read the same part of it.
    bool common;
    bool used = false;
};

// The stacks of a block's threads, kept across launches, each with a guard page below.
struct Stacks {
    static constexpr size_t LEN = 256 << 10, PAGE = 4096, SPREAD = 8192;
    // Minimum usable bytes of a stack.
    static constexpr size_t ROOM = LEN - PAGE - SPREAD;
    u8 *start = nullptr;
    size_t count = 0;

    ~Stacks() { release(); }
    void release() {
        if (start) {
            munmap(start, count * LEN);
        }
    }
    void reserve(size_t threads) {
        if (threads <= count) {
            return;
        }
        release();
        count = threads;
        start = (u8 *)mmap(nullptr, count * LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED) {
            throw std::bad_alloc();
        }
        for (size_t i = 0; i < count; ++i) {
            mprotect(start + i * LEN, PAGE, PROT_NONE);
        }
    }
    // Staggered relative to the page, so that the first lines of the stacks do not compete for the same cache sets.
    u8 *end(size_t thread) const { return start + (thread + 1) * LEN - thread * 1088 % SPREAD; }
};

struct Device {
    std::map<const u8 *, Allocation> memory;
    // Number of blocks run so far.
    u32 blocks = 0;
    Stacks stacks;
};

} // namespace emulated
