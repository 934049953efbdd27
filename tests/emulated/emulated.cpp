// Runs launches on the host: fibers, their meetings, and a watch over device memory.
//
// What comes in through the functions at the end: allocations, and launches with the order of lanes and the time at
// which asynchronous copies land. What goes out: an error with the place, or how many sectors of 32 bytes were touched.
#include "common.cuh"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <sys/mman.h>
#include <vector>

#if __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a call must keep and the stack pointer, and goes on where another fiber did so.
extern "C" void hasn_switch(void **save, void *load);
asm(R"(
.text
.hidden hasn_switch
.globl hasn_switch
.type hasn_switch, @function
hasn_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

namespace emulated {
namespace {

constexpr int LANES = 32;
constexpr size_t STACK = 256 << 10, SECTOR = 32;

enum State { READY, IN_WARP, AT_BARRIER, ENDED };

struct Copy {
    void *to;
    const void *from;
    bool inside;
};

struct Thread {
    Index index;
    void *stack_pointer;
    State state;
    Meeting meeting;
    void *operand;
    int where;
    std::vector<Copy> copies;
    void *fake_stack;
};

struct Allocation {
    const u8 *start;
    size_t len;
    std::vector<bool> touched[2];
};

struct Request {
    const char *kernel;
    u32 grid[3];
    u32 threads;
    u32 shared;
    const void *args;
    size_t args_len;
    // 0: forward, 1: reverse, 2: by chance.
    u32 lanes;
    u32 late_copies;
    u64 seed;
};

struct Stats {
    u64 sectors_read, sectors_written, bytes_read, bytes_written;
};

struct Launch {
    const Request *request;
    const Kernel *kernel;
    Index block;
    std::unique_ptr<u8[]> shared;
    std::vector<Thread> threads;
    Thread *current;
    void *scheduler;
    void *scheduler_fake_stack;
    std::vector<Allocation> allocations;
    Allocation *last;
    u64 bytes[2];
    std::string error;
    std::mt19937_64 random;
};

// Of one host thread, kept from launch to launch.
struct Stacks {
    u8 *start = nullptr;
    size_t count = 0;
    ~Stacks() {
        if (start) {
            munmap(start, count * STACK);
        }
    }
    u8 *top(size_t thread) { return start + (thread + 1) * STACK; }
    void reserve(size_t threads) {
        if (threads > count) {
            this->~Stacks();
            count = threads;
            start = (u8 *)mmap(nullptr, count * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        }
    }
};

thread_local Launch *launch;
thread_local Stacks stacks;

std::mutex memory_lock;
std::map<const u8 *, size_t> memory;

std::vector<const Kernel *> &kernels() {
    static std::vector<const Kernel *> list;
    return list;
}

// The first error is the one to tell.
void fail(const std::string &what) {
    if (launch->error.empty()) {
        const Index b = launch->block;
        char place[160];
        snprintf(place, sizeof place, "%s, block (%u, %u, %u)", launch->kernel->name, b.x, b.y, b.z);
        launch->error = place;
        if (launch->current) {
            launch->error += ", thread " + std::to_string(launch->current->index.x);
        }
        launch->error += ": " + what;
    }
}

void to_scheduler() {
    Thread &thread = *launch->current;
#if __SANITIZE_ADDRESS__
    void **fake = thread.state == ENDED ? nullptr : &thread.fake_stack;
    __sanitizer_start_switch_fiber(fake, nullptr, 0);
#endif
    hasn_switch(&thread.stack_pointer, launch->scheduler);
#if __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(thread.fake_stack, nullptr, nullptr);
#endif
}

void fiber() {
#if __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    launch->kernel->run(launch->request->args);
    launch->current->state = ENDED;
    to_scheduler();
}

void prepare(Thread &thread, u8 *top) {
    // As hasn_switch leaves a stack: six registers and where to go on, which sees the stack as after a call.
    void **stack = (void **)top - 1;
    *stack = nullptr;
    *--stack = (void *)fiber;
    stack -= 6;
    memset(stack, 0, 6 * sizeof(void *));
    thread.stack_pointer = stack;
    thread.state = READY;
    thread.copies.clear();
    thread.fake_stack = nullptr;
}

void run(Thread &thread, u8 *stack_top) {
    launch->current = &thread;
#if __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&launch->scheduler_fake_stack, stack_top - STACK, STACK);
#endif
    hasn_switch(&launch->scheduler, thread.stack_pointer);
#if __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(launch->scheduler_fake_stack, nullptr, nullptr);
#else
    (void)stack_top;
#endif
    launch->current = nullptr;
}

bool in_shared(const void *address, size_t len) {
    const u8 *start = launch->shared.get(), *at = (const u8 *)address;
    return at >= start && at + len <= start + launch->request->shared && (uintptr_t)at % 16 == 0;
}

void load_matrices_of(Thread *lanes, int matrices) {
    static const u16 nothing[8] = {};
    const u16 *rows[LANES];
    for (int lane = 0; lane < matrices * 8; ++lane) {
        rows[lane] = ((Load *)lanes[lane].operand)->row;
        if (!in_shared(rows[lane], 16)) {
            launch->current = &lanes[lane];
            fail("a row of a matrix is not 16 aligned bytes of shared memory");
            launch->current = nullptr;
            rows[lane] = nothing;
        }
    }
    for (int lane = 0; lane < LANES; ++lane) {
        for (int matrix = 0; matrix < matrices; ++matrix) {
            memcpy(((Load *)lanes[lane].operand)->result + matrix, rows[matrix * 8 + lane / 4] + lane % 4 * 2, 4);
        }
    }
}

// a: [16, depth], b: [depth, 8], d: [16, 8].
void multiply(Thread *lanes, int depth) {
    float a[16][16], b[16][8], d[16][8];
    for (int lane = 0; lane < LANES; ++lane) {
        const Multiply &m = *(Multiply *)lanes[lane].operand;
        const int row = lane / 4, column = lane % 4 * 2;
        for (int part = 0; part < depth / 4; ++part) {
            const float2 v = unpack(m.a[part]);
            a[row + part % 2 * 8][column + part / 2 * 8] = v.x;
            a[row + part % 2 * 8][column + part / 2 * 8 + 1] = v.y;
        }
        for (int part = 0; part < depth / 8; ++part) {
            const float2 v = unpack(m.b[part]);
            b[column + part * 8][row] = v.x;
            b[column + part * 8 + 1][row] = v.y;
        }
        for (int k = 0; k < 4; ++k) {
            d[row + k / 2 * 8][column + k % 2] = m.d[k];
        }
    }
    for (int i = 0; i < 16; ++i) {
        for (int k = 0; k < depth; ++k) {
            for (int j = 0; j < 8; ++j) {
                d[i][j] += a[i][k] * b[k][j];
            }
        }
    }
    for (int lane = 0; lane < LANES; ++lane) {
        const Multiply &m = *(Multiply *)lanes[lane].operand;
        for (int k = 0; k < 4; ++k) {
            m.d[k] = d[lane / 4 + k / 2 * 8][lane % 4 * 2 + k % 2];
        }
    }
}

void hold(Thread *lanes) {
    switch (lanes[0].meeting) {
    case SHUFFLE:
        for (int lane = 0; lane < LANES; ++lane) {
            Shuffle &own = *(Shuffle *)lanes[lane].operand;
            own.result = ((Shuffle *)lanes[lane ^ own.mask].operand)->value;
        }
        break;
    case LOAD_TWO: load_matrices_of(lanes, 2); break;
    case LOAD_FOUR: load_matrices_of(lanes, 4); break;
    case MULTIPLY_8: multiply(lanes, 8); break;
    case MULTIPLY_16: multiply(lanes, 16); break;
    }
    for (int lane = 0; lane < LANES; ++lane) {
        lanes[lane].state = READY;
    }
}

std::vector<int> order(int count) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (launch->request->lanes == 1) {
        std::reverse(order.begin(), order.end());
    } else if (launch->request->lanes == 2) {
        std::shuffle(order.begin(), order.end(), launch->random);
    }
    return order;
}

// Runs a warp until its lanes wait for the rest of the block or have ended.
void run_warp(int first) {
    Thread *lanes = &launch->threads[first];
    const std::vector<int> turns = order(LANES);
    for (;;) {
        for (int lane : turns) {
            if (lanes[lane].state == READY) {
                run(lanes[lane], stacks.top(first + lane));
            }
        }
        const bool met = std::all_of(lanes, lanes + LANES, [&](const Thread &lane) {
            return lane.state == IN_WARP && lane.meeting == lanes[0].meeting;
        });
        if (!met) {
            return;
        }
        hold(lanes);
    }
}

void run_block() {
    std::vector<Thread> &threads = launch->threads;
    const u32 shared = launch->request->shared;
    launch->shared.reset(new u8[shared]);
    // NaN in f16 and in f32.
    memset(launch->shared.get(), 0xff, shared);
    for (size_t i = 0; i < threads.size(); ++i) {
        prepare(threads[i], stacks.top(i));
    }
    while (launch->error.empty()) {
        for (int warp : order(threads.size() / LANES)) {
            run_warp(warp * LANES);
        }
        const auto all = [&](State state) {
            return std::all_of(threads.begin(), threads.end(), [&](const Thread &thread) {
                return thread.state == state && (state == ENDED || thread.where == threads[0].where);
            });
        };
        if (all(ENDED)) {
            return;
        }
        if (!all(AT_BARRIER)) {
            const auto odd = std::find_if(threads.begin(), threads.end(), [&](const Thread &thread) {
                return thread.state != threads[0].state || thread.where != threads[0].where;
            });
            launch->current = odd == threads.end() ? &threads[0] : &*odd;
            fail("the threads of the block, or the lanes of a warp, wait for each other in different places");
            return;
        }
        for (Thread &thread : threads) {
            thread.state = READY;
        }
    }
}

} // namespace

Index thread_index() { return launch->current->index; }
Index block_index() { return launch->block; }
Index block_size() { return {launch->request->threads, 1, 1}; }
Index grid_size() { return {launch->request->grid[0], launch->request->grid[1], launch->request->grid[2]}; }
u8 *shared() { return launch->shared.get(); }

void meet(Meeting meeting, void *operand) {
    Thread &thread = *launch->current;
    thread.meeting = meeting;
    thread.operand = operand;
    thread.state = IN_WARP;
    to_scheduler();
}

void barrier(int where) {
    launch->current->where = where;
    launch->current->state = AT_BARRIER;
    to_scheduler();
}

bool allowed(const void *address, size_t len, Access access) {
    const u8 *at = (const u8 *)address;
    Allocation *home = launch->last;
    if (!home || at < home->start || at >= home->start + home->len) {
        auto &all = launch->allocations;
        auto next = std::upper_bound(all.begin(), all.end(), at, [](const u8 *at, const Allocation &a) { return at < a.start; });
        home = next == all.begin() ? nullptr : &*--next;
    }
    char what[200];
    if (!home) {
        snprintf(what, sizeof what, "%zu bytes at %p are in no buffer", len, address);
        return fail(what), false;
    }
    if (at + len > home->start + home->len) {
        const size_t past = at + len - home->start - home->len;
        snprintf(what, sizeof what, "%zu bytes end %zu bytes past the end of a buffer of %zu bytes", len, past, home->len);
        return fail(what), false;
    }
    if ((uintptr_t)at % len != 0) {
        snprintf(what, sizeof what, "%zu bytes at %p are not aligned", len, address);
        return fail(what), false;
    }
    launch->last = home;
    launch->bytes[access] += len;
    home->touched[access][(at - home->start) / SECTOR] = true;
    return true;
}

void copy_late_or_now(void *to, const void *from, bool inside) {
    if (!in_shared(to, 16)) {
        fail("a copy does not go to 16 aligned bytes of shared memory");
        return;
    }
    launch->current->copies.push_back({to, from, inside});
    if (!launch->request->late_copies) {
        finish_copies();
    }
}

void finish_copies() {
    for (const Copy &copy : launch->current->copies) {
        if (!copy.inside) {
            memset(copy.to, 0, 16);
        } else if (allowed(copy.from, 16, READ)) {
            memcpy(copy.to, copy.from, 16);
        }
    }
    launch->current->copies.clear();
}

Kernel::Kernel(const char *name, size_t args_len, unsigned threads, void (*run)(const void *))
    : name(name), args_len(args_len), threads(threads), run(run) {
    kernels().push_back(this);
}

} // namespace emulated

#define EXPORT extern "C" __attribute__((visibility("default")))
using namespace emulated;

EXPORT void hasn_allocated(const u8 *start, size_t len) {
    const std::lock_guard lock(memory_lock);
    memory[start] = len;
}

EXPORT void hasn_freed(const u8 *start) {
    const std::lock_guard lock(memory_lock);
    memory.erase(start);
}

// False behind the last one.
EXPORT bool hasn_kernel(size_t index, const char **name, size_t *args_len) {
    if (index >= kernels().size()) {
        return false;
    }
    *name = kernels()[index]->name;
    *args_len = kernels()[index]->args_len;
    return true;
}

// False where it failed; why is in `error`.
EXPORT bool hasn_launch(const Request *request, Stats *stats, char *error, size_t error_len) {
    const auto &all = kernels();
    const auto kernel = std::find_if(all.begin(), all.end(), [&](const Kernel *k) { return !strcmp(k->name, request->kernel); });
    if (kernel == all.end() || (*kernel)->args_len != request->args_len || (*kernel)->threads != request->threads) {
        snprintf(error, error_len, "%s: there is no such kernel with %zu bytes of arguments and %u threads", request->kernel,
                 request->args_len, request->threads);
        return false;
    }
    Launch own{};
    own.request = request;
    own.kernel = *kernel;
    own.random.seed(request->seed);
    own.threads.resize(request->threads);
    for (u32 i = 0; i < request->threads; ++i) {
        own.threads[i].index = {i, 0, 0};
    }
    {
        const std::lock_guard lock(memory_lock);
        for (const auto &[start, len] : memory) {
            const std::vector<bool> none((len + SECTOR - 1) / SECTOR);
            own.allocations.push_back({start, len, {none, none}});
        }
    }
    stacks.reserve(request->threads);
    launch = &own;
    const u32 *grid = request->grid;
    for (u32 i = 0; i < grid[0] * grid[1] * grid[2] && own.error.empty(); ++i) {
        own.block = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
        run_block();
    }
    launch = nullptr;
    u64 sectors[2] = {};
    for (const Allocation &allocation : own.allocations) {
        for (int access = 0; access < 2; ++access) {
            const auto &touched = allocation.touched[access];
            sectors[access] += std::count(touched.begin(), touched.end(), true);
        }
    }
    *stats = {sectors[READ], sectors[WRITE], own.bytes[READ], own.bytes[WRITE]};
    snprintf(error, error_len, "%s", own.error.c_str());
    return own.error.empty();
}
