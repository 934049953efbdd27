// What a device keeps from launch to launch: its allocations, and the stacks of a block's threads.
#pragma once

#include <map>
#include <new>
#include <sys/mman.h>
#include <vector>

namespace emulated {

// Bytes of what device memory is read and written by.
constexpr size_t SECTOR = 32;

// Which sectors were touched, and by which block last.
struct Sectors {
    std::vector<u32> last;
    u64 of_launch = 0, of_blocks = 0;
    // Blocks are counted from 1, and on from launch to launch.
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
    // Every block reads the same of it.
    bool common;
    bool used = false;
};

// The stacks of a block's threads, kept from launch to launch, each with a page below that nothing may touch.
struct Stacks {
    static constexpr size_t LEN = 256 << 10, PAGE = 4096, SPREAD = 8192;
    // What a thread has at least.
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
    // Not all at the same distance from a page's end, or their first lines would share the few places that a cache
    // has for them.
    u8 *end(size_t thread) const { return start + (thread + 1) * LEN - thread * 1088 % SPREAD; }
};

struct Device {
    std::map<const u8 *, Allocation> memory;
    // That have run.
    u32 blocks = 0;
    Stacks stacks;
};

} // namespace emulated
