// Runs launches on the host: fibers, their synchronisation, and checks of device memory accesses.
//
// In, through the functions at the end: allocations, and launches with the order of lanes and the time at which
// asynchronous copies complete. Out: an error with its place, or the number of 32-byte sectors touched. A device belongs to
// one host thread at a time; several devices may run in parallel.
#include "common.cuh"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "memory.h"

#if __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the callee-saved registers and the stack pointer, and resumes another fiber at the point where it did so.
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

__thread Here *here;

namespace {

constexpr size_t LANES = 32;

enum State { READY, IN_WARP, AT_BARRIER, ENDED };

struct Copy {
    void *to;
    const void *from;
    bool inside;
};

struct Barrier {
    int where;
    const char *file;
    int line;
};

struct Thread : Here {
    u8 *stack; // End of the stack.
    void *stack_pointer;
    void *fake_stack;
    State state;
    WarpOp warp_op;
    void *operand;
    Barrier barrier;
    std::vector<Copy> copies;
};

} // namespace

struct Request {
    const char *kernel;
    u32 grid[3];
    u32 threads;
    u32 shared;
    const void *args;
    size_t args_len;
    // 0: forward, 1: reverse, 2: random.
    u32 lanes;
    u32 late_copies;
    u64 seed;
};

// Device memory traffic and work of a launch: sectors touched by the launch, the sum over blocks of sectors touched by each
// block in buffers that are not common to all blocks, and operation counts.
struct Traffic {
    u64 read, written, read_by_blocks, written_by_blocks;
    u64 multiply_adds, special_functions, conversions;
    // Matrices of eight rows read from shared memory, and bank conflicts.
    u64 matrices, conflicts;
    // Bytes of shared memory per block.
    u64 shared;
};

namespace {

std::vector<const Kernel *> &kernels() {
    static std::vector<const Kernel *> list;
    return list;
}

struct Launch : Block {
    Device &device;
    const Request &request;
    const Kernel &kernel;
    std::vector<Thread> all;
    std::vector<int> warps, lanes;
    std::mt19937_64 random;
    void *scheduler = nullptr;
    void *scheduler_fake_stack = nullptr;
    Allocation *last = nullptr;
    std::vector<Allocation *> used;
    Traffic traffic = {};
    u32 first_block;
    std::string error;

    Launch(Device &device, const Request &request, const Kernel &kernel);
    void run();
    void count();
    void fail(const Thread &, const std::string &what);
    bool allowed(const Thread &, const void *address, size_t len, Access);
    bool in_shared(const void *address, size_t len) const;

  private:
    void run_block();
    void run_warp(Thread *lanes);
    void resume(Thread &);
    void shuffle(std::vector<int> &order);
    void run_together(Thread *lanes);
    void load_matrices_of(Thread *lanes, size_t matrices);
    void fail_deadlock();
};

Thread &self() { return *static_cast<Thread *>(here); }
Launch &launch() { return *static_cast<Launch *>(here->block); }

void to_scheduler() {
    Thread &thread = self();
    Launch &own = launch();
#if __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(thread.state == ENDED ? nullptr : &thread.fake_stack, nullptr, 0);
#endif
    hasn_switch(&thread.stack_pointer, own.scheduler);
#if __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(thread.fake_stack, nullptr, nullptr);
#endif
}

void fiber() {
#if __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    launch().kernel.run(launch().request.args);
    self().state = ENDED;
    to_scheduler();
}

void prepare(Thread &thread) {
    // The stack as hasn_switch leaves it: six registers and the return address, which finds it aligned as after a call.
    void **stack = (void **)thread.stack - 1;
    *stack = nullptr;
    *--stack = (void *)fiber;
    stack -= 6;
    memset(stack, 0, 6 * sizeof(void *));
    thread.stack_pointer = stack;
    thread.fake_stack = nullptr;
    thread.state = READY;
    thread.copies.clear();
}

// Describes what a blocked thread is doing.
std::string doing(const Thread &thread) {
    static const char *const WARP_OPS[] = {"shuffles", "loads two matrices", "loads four matrices",
                                           "multiplies by 8 rows", "multiplies by 16 rows"};
    if (thread.state == ENDED) {
        return "has ended";
    }
    if (thread.state == IN_WARP) {
        return WARP_OPS[thread.warp_op];
    }
    const char *file = strrchr(thread.barrier.file, '/');
    return "waits at the barrier of " + std::string(file ? file + 1 : thread.barrier.file) + ":" +
           std::to_string(thread.barrier.line);
}

bool alike(const Thread &a, const Thread &b) {
    return a.state == b.state && (a.state != IN_WARP || a.warp_op == b.warp_op) &&
           (a.state != AT_BARRIER || a.barrier.where == b.barrier.where);
}

// a: [16, DEPTH], b: [DEPTH, 8], d: [16, 8].
template <size_t DEPTH> void multiply(Thread *lanes) {
    typedef float Row __attribute__((vector_size(32)));
    float a[16][DEPTH];
    Row b[DEPTH], d[16];
    for (size_t lane = 0; lane < LANES; ++lane) {
        const Multiply &m = *(Multiply *)lanes[lane].operand;
        const size_t row = lane / 4, column = lane % 4 * 2;
        for (size_t part = 0; part < DEPTH / 4; ++part) {
            const float2 v = unpack(m.a[part]);
            memcpy(&a[row + part % 2 * 8][column + part / 2 * 8], &v, sizeof v);
        }
        for (size_t part = 0; part < DEPTH / 8; ++part) {
            const float2 v = unpack(m.b[part]);
            b[column + part * 8][row] = v.x;
            b[column + part * 8 + 1][row] = v.y;
        }
        memcpy((float *)&d[row] + column, m.d, 8);
        memcpy((float *)&d[row + 8] + column, m.d + 2, 8);
    }
    for (size_t i = 0; i < 16; ++i) {
        for (size_t k = 0; k < DEPTH; ++k) {
            d[i] += a[i][k] * b[k];
        }
    }
    for (size_t lane = 0; lane < LANES; ++lane) {
        float *own = ((Multiply *)lanes[lane].operand)->d;
        memcpy(own, (float *)&d[lane / 4] + lane % 4 * 2, 8);
        memcpy(own + 2, (float *)&d[lane / 4 + 8] + lane % 4 * 2, 8);
    }
}

Launch::Launch(Device &device, const Request &request, const Kernel &kernel)
    : device(device), request(request), kernel(kernel), all(request.threads), warps(request.threads / LANES), lanes(LANES),
      random(request.seed) {
    grid = {request.grid[0], request.grid[1], request.grid[2]};
    threads = {request.threads, 1, 1};
    device.stacks.reserve(request.threads);
    first_block = device.blocks + 1;
    special_functions = conversions = 0;
    for (u32 i = 0; i < request.threads; ++i) {
        all[i].thread = {i, 0, 0};
        all[i].block = this;
        all[i].stack = device.stacks.end(i);
    }
    for (std::vector<int> *order : {&warps, &lanes}) {
        std::iota(order->begin(), order->end(), 0);
        if (request.lanes == 1) {
            std::reverse(order->begin(), order->end());
        }
    }
}

void Launch::run() {
    for (u32 z = 0; z < grid.z; ++z) {
        for (u32 y = 0; y < grid.y; ++y) {
            for (u32 x = 0; x < grid.x && error.empty(); ++x) {
                index = {x, y, z};
                ++device.blocks;
                run_block();
            }
        }
    }
#if __SANITIZE_ADDRESS__
    // Threads that have not ended leave red zones behind.
    if (!error.empty()) {
        for (const Thread &thread : all) {
            __asan_unpoison_memory_region(thread.stack - Stacks::ROOM, Stacks::ROOM);
        }
    }
#endif
}

void Launch::run_block() {
    // Exactly the requested length, so that AddressSanitizer detects overruns. All ones are NaN in f16 and in f32.
    const std::unique_ptr<u8[]> memory(new u8[request.shared]);
    shared = memory.get();
    memset(shared, 0xff, request.shared);
    std::for_each(all.begin(), all.end(), prepare);
    for (;;) {
        shuffle(warps);
        for (int warp : warps) {
            run_warp(&all[warp * LANES]);
        }
        if (!error.empty()) {
            return;
        }
        const bool same = std::all_of(all.begin(), all.end(), [&](const Thread &thread) { return alike(thread, all[0]); });
        if (!same || all[0].state == IN_WARP) {
            return fail_deadlock();
        }
        if (all[0].state == ENDED) {
            return;
        }
        for (Thread &thread : all) {
            thread.state = READY;
        }
    }
}

// Runs a warp until its lanes wait for the rest of the block, have ended, or are deadlocked.
void Launch::run_warp(Thread *warp) {
    shuffle(lanes);
    for (;;) {
        for (int lane : lanes) {
            if (warp[lane].state == READY) {
                resume(warp[lane]);
            }
        }
        const bool met = std::all_of(warp, warp + LANES, [&](const Thread &lane) {
            return lane.state == IN_WARP && lane.warp_op == warp[0].warp_op;
        });
        if (!met) {
            return;
        }
        run_together(warp);
    }
}

void Launch::resume(Thread &thread) {
    here = &thread;
#if __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, thread.stack - Stacks::ROOM, Stacks::ROOM);
#endif
    hasn_switch(&scheduler, thread.stack_pointer);
#if __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
    here = nullptr;
}

void Launch::shuffle(std::vector<int> &order) {
    if (request.lanes == 2) {
        std::shuffle(order.begin(), order.end(), random);
    }
}

void Launch::run_together(Thread *warp) {
    switch (warp[0].warp_op) {
    case SHUFFLE:
        for (size_t lane = 0; lane < LANES; ++lane) {
            emulated::Shuffle &own = *(Shuffle *)warp[lane].operand;
            own.result = ((Shuffle *)warp[lane ^ own.mask % LANES].operand)->value;
        }
        break;
    case LOAD_TWO: load_matrices_of(warp, 2); break;
    case LOAD_FOUR: load_matrices_of(warp, 4); break;
    case MULTIPLY_8:
        multiply<8>(warp);
        traffic.multiply_adds += 16 * 8 * 8;
        break;
    case MULTIPLY_16:
        multiply<16>(warp);
        traffic.multiply_adds += 16 * 16 * 8;
        break;
    }
    for (size_t lane = 0; lane < LANES; ++lane) {
        warp[lane].state = READY;
    }
}

void Launch::load_matrices_of(Thread *warp, size_t matrices) {
    static const u16 nothing[8] = {};
    const u16 *rows[LANES];
    for (size_t lane = 0; lane < matrices * 8; ++lane) {
        rows[lane] = ((Load *)warp[lane].operand)->row;
        if (!in_shared(rows[lane], 16)) {
            fail(warp[lane], "a row of a matrix is not 16 aligned bytes of shared memory");
            rows[lane] = nothing;
        }
    }
    // Eight rows are read at once if they lie in different 16-byte units of a 128-byte line.
    for (size_t first = 0; first < matrices * 8; first += 8) {
        u64 rows_of_bank[8] = {};
        for (size_t lane = first; lane < first + 8; ++lane) {
            // A row that several lanes address is read once.
            if (std::find(rows + first, rows + lane, rows[lane]) == rows + lane) {
                ++rows_of_bank[(uintptr_t)rows[lane] / 16 % 8];
            }
        }
        ++traffic.matrices;
        traffic.conflicts += *std::max_element(rows_of_bank, rows_of_bank + 8) - 1;
    }
    for (size_t lane = 0; lane < LANES; ++lane) {
        for (size_t matrix = 0; matrix < matrices; ++matrix) {
            memcpy(((Load *)warp[lane].operand)->result + matrix, rows[matrix * 8 + lane / 4] + lane % 4 * 2, 4);
        }
    }
}

// Reports two threads that wait at different places, preferably of one deadlocked warp.
void Launch::fail_deadlock() {
    for (size_t first = 0; first < all.size(); first += LANES) {
        for (size_t lane = first; lane < first + LANES; ++lane) {
            const bool stuck = all[lane].state == IN_WARP || all[first].state == IN_WARP;
            if (stuck && !alike(all[lane], all[first])) {
                const std::string other = ", and thread " + std::to_string(first) + " " + doing(all[first]);
                return fail(all[lane], doing(all[lane]) + other);
            }
        }
    }
    const auto odd = std::find_if(all.begin(), all.end(), [&](const Thread &thread) { return !alike(thread, all[0]); });
    fail(*odd, doing(*odd) + ", and thread 0 " + doing(all[0]));
}

// Records an error. Only the first one is kept.
void Launch::fail(const Thread &thread, const std::string &what) {
    if (error.empty()) {
        char place[160];
        snprintf(place, sizeof place, "%s, block (%u, %u, %u), thread %u: ", kernel.name, index.x, index.y, index.z,
                 thread.thread.x);
        error = place + what;
    }
}

bool Launch::in_shared(const void *address, size_t len) const {
    const u8 *at = (const u8 *)address;
    return at >= shared && at + len <= shared + request.shared && (uintptr_t)at % 16 == 0;
}

bool Launch::allowed(const Thread &thread, const void *address, size_t len, Access access) {
    const u8 *at = (const u8 *)address;
    if (!last || at < last->start || at >= last->start + last->len) {
        const auto next = device.memory.upper_bound(at);
        last = next == device.memory.begin() ? nullptr : &std::prev(next)->second;
    }
    const char *verb = access == READ ? "read" : "written";
    char what[200];
    if (!last) {
        snprintf(what, sizeof what, "%zu bytes at %p are %s, which is in no buffer", len, address, verb);
        return fail(thread, what), false;
    }
    if (at + len > last->start + last->len) {
        const size_t past = at + len - last->start - last->len;
        snprintf(what, sizeof what, "%zu bytes at %p are %s, %zu bytes past the end of a buffer of %zu bytes", len, address,
                 verb, past, last->len);
        return fail(thread, what), false;
    }
    if ((uintptr_t)at % len != 0) {
        snprintf(what, sizeof what, "%zu bytes at %p are %s, which is not aligned", len, address, verb);
        return fail(thread, what), false;
    }
    if (!last->used) {
        last->used = true;
        used.push_back(last);
    }
    last->touched[access].touch((at - last->start) / SECTOR, first_block, device.blocks);
    return true;
}

void Launch::count() {
    u64 *of_launch[] = {&traffic.read, &traffic.written};
    u64 *of_blocks[] = {&traffic.read_by_blocks, &traffic.written_by_blocks};
    for (Allocation *allocation : used) {
        for (int access : {READ, WRITE}) {
            Sectors &touched = allocation->touched[access];
            *of_launch[access] += touched.of_launch;
            *of_blocks[access] += allocation->common ? 0 : touched.of_blocks;
            touched.of_launch = touched.of_blocks = 0;
        }
        allocation->used = false;
    }
    traffic.special_functions = special_functions;
    traffic.conversions = conversions;
    traffic.shared = request.shared;
}

void land(const Copy &copy) {
    if (copy.inside) {
        memcpy(copy.to, copy.from, 16);
    } else {
        memset(copy.to, 0, 16);
    }
}

} // namespace

void join_warp(WarpOp warp_op, void *operand) {
    Thread &thread = self();
    thread.warp_op = warp_op;
    thread.operand = operand;
    thread.state = IN_WARP;
    to_scheduler();
}

void barrier(int where, const char *file, int line) {
    self().barrier = {where, file, line};
    self().state = AT_BARRIER;
    to_scheduler();
}

bool allowed(const void *address, size_t len, Access access) { return launch().allowed(self(), address, len, access); }

void copy(void *to, const void *from, bool inside) {
    if (!launch().in_shared(to, 16)) {
        return launch().fail(self(), "a copy does not go to 16 aligned bytes of shared memory");
    }
    const Copy copy = {to, from, inside && allowed(from, 16, READ)};
    if (launch().request.late_copies) {
        self().copies.push_back(copy);
    } else {
        land(copy);
    }
}

void finish_copies() {
    std::vector<Copy> &copies = self().copies;
    std::for_each(copies.begin(), copies.end(), land);
    copies.clear();
}

Kernel::Kernel(const char *name, size_t args_len, unsigned threads, void (*run)(const void *))
    : name(name), args_len(args_len), threads(threads), run(run) {
    kernels().push_back(this);
}

} // namespace emulated

#define EXPORT extern "C" __attribute__((visibility("default")))
using namespace emulated;

EXPORT Device *hasn_open() { return new Device; }

EXPORT void hasn_close(Device *device) { delete device; }

EXPORT void hasn_allocated(Device *device, const u8 *start, size_t len, bool common) {
    const Sectors none{std::vector<u32>((len + SECTOR - 1) / SECTOR)};
    device->memory[start] = {start, len, {none, none}, common};
}

EXPORT void hasn_freed(Device *device, const u8 *start) { device->memory.erase(start); }

// Describes a kernel. Returns false past the last one.
EXPORT bool hasn_kernel(size_t index, const char **name, size_t *args_len, u32 *threads) {
    if (index >= kernels().size()) {
        return false;
    }
    const Kernel &kernel = *kernels()[index];
    *name = kernel.name, *args_len = kernel.args_len, *threads = kernel.threads;
    return true;
}

// Runs a launch. Returns false if it failed, with the reason in `error`.
EXPORT bool hasn_launch(Device *device, const Request *request, Traffic *traffic, char *error, size_t error_len) {
    const auto &all = kernels();
    const auto named = [&](const Kernel *kernel) { return !strcmp(kernel->name, request->kernel); };
    const auto kernel = std::find_if(all.begin(), all.end(), named);
    if (kernel == all.end() || (*kernel)->args_len != request->args_len || (*kernel)->threads != request->threads) {
        snprintf(error, error_len, "%s: there is no such kernel with %zu bytes of arguments and %u threads",
                 request->kernel, request->args_len, request->threads);
        return false;
    }
    Launch launch(*device, *request, **kernel);
    launch.run();
    launch.count();
    *traffic = launch.traffic;
    snprintf(error, error_len, "%s", launch.error.c_str());
    return launch.error.empty();
}
