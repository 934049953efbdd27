// A stand-in for NVIDIA's driver: one GPU whose memory is the host's and whose kernels do nothing, at once. What a test
// wants to go wrong is named by the variable STAND_IN. It keeps count of what it hands out and aborts where something is
// not given back, or given to the wrong call.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, STUB_LIBRARY = 34, NO_DEVICE = 100, LAUNCH_FAILED = 719 };

typedef unsigned long long u64;

static int is(const char *what) {
    const char *said = getenv("STAND_IN");
    return said && !strcmp(said, what);
}

int cuDriverGetVersion(int *version) {
    return is("stub") ? STUB_LIBRARY : (*version = is("old") ? 11040 : 12000, OK);
}
int cuInit(unsigned flags) { return is("no-device") ? NO_DEVICE : OK; }

// `LACKING` leaves out all that a driver of today has besides.
#ifndef LACKING

// Everything that is handed out is one of these, and says what it is.
struct thing {
    const char *kind;
    void *bytes;
};
static int handed_out;
static int capturing;

static void fail(const char *what) {
    fprintf(stderr, "stand-in: %s\n", what);
    abort();
}
__attribute__((destructor)) static void at_exit(void) {
    if (handed_out)
        fail("something is not given back");
}
static int make(void **out, const char *kind, size_t len) {
    struct thing *thing = malloc(sizeof *thing);
    thing->kind = kind;
    thing->bytes = calloc(1, len);
    *out = thing;
    ++handed_out;
    return OK;
}
static void check(const void *pointer, const char *kind) {
    if (!pointer || strcmp(((const struct thing *)pointer)->kind, kind))
        fail(kind);
}
static int destroy(void *pointer, const char *kind) {
    check(pointer, kind);
    free(((struct thing *)pointer)->bytes);
    free(pointer);
    --handed_out;
    return OK;
}

int cuGetErrorString(int error, const char **said) {
    return *said = error == LAUNCH_FAILED ? "unspecified launch failure" : "an error of the stand-in", OK;
}

static int shared_max(void) { return is("turing") ? 65536 : 101376; }
int cuDeviceGetCount(int *count) { return *count = is("none-visible") ? 0 : 1, OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, OK; }
int cuDeviceGetName(char *name, int len, int device) { return snprintf(name, len, "Stand-in"), OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 75: return *value = is("pascal") ? 6 : is("turing") ? 7 : is("to-come") ? 13 : 8, OK;
    case 76: return *value = is("pascal") ? 1 : is("turing") ? 5 : is("to-come") ? 0 : 6, OK;
    case 97: return *value = shared_max(), OK;
    default: return *value = 0, OK;
    }
}

static void *current;
int cuDevicePrimaryCtxRetain(void **context, int device) { return make(context, "context", 1); }
int cuDevicePrimaryCtxRelease_v2(int device) {
    return destroy(current, "context");
}
int cuCtxGetCurrent(void **context) { return *context = current, OK; }
int cuCtxSetCurrent(void *context) { return check(context, "context"), current = context, OK; }

int cuModuleLoadData(void **module, const void *image) {
    if (is("to-come") ? !strstr(image, ".target sm_120\n") : memcmp(image, "\x7f" "ELF", 4))
        fail("code of another kind");
    return make(module, "module", 1);
}
int cuModuleUnload(void *module) { return destroy(module, "module"); }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    static struct thing one = {"function", 0};
    return check(module, "module"), *function = &one, OK;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    return check(function, "function"), attribute == 8 && value == shared_max() ? OK : INVALID_VALUE;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    return *free = is("little-memory") ? 64000000 : 4000000000, *total = 4000000000, OK;
}
// The address is that of the bytes, past which lies nothing else.
int cuMemAlloc_v2(u64 *address, size_t len) {
    if (capturing)
        fail("allocates in a capture");
    if (is("fragmented"))
        return OUT_OF_MEMORY;
    return *address = (u64)calloc(1, len), ++handed_out, OK;
}
int cuMemFree_v2(u64 address) { return free((void *)address), --handed_out, OK; }
int cuMemHostAlloc(void **bytes, size_t len, unsigned flags) {
    if (flags)
        fail("slow to read back");
    return *bytes = malloc(len), memset(*bytes, 0x55, len), ++handed_out, OK;
}
int cuMemFreeHost(void *bytes) { return free(bytes), --handed_out, OK; }

int cuStreamCreate(void **stream, unsigned flags) { return flags == 1 ? make(stream, "stream", 1) : INVALID_VALUE; }
int cuStreamDestroy_v2(void *stream) { return destroy(stream, "stream"); }
// A timer remembers that it is one, and counts what is done by calls.
static float now_ms;
int cuEventCreate(void **event, unsigned flags) {
    if (flags != 1 && flags != 3)
        return INVALID_VALUE;
    make(event, "event", sizeof(float));
    *(float *)((struct thing *)*event)->bytes = flags == 1 ? 0 : -1;
    return OK;
}
int cuEventDestroy_v2(void *event) { return destroy(event, "event"); }
int cuEventElapsedTime(float *ms, void *from, void *to) {
    check(from, "event");
    check(to, "event");
    const float start = *(float *)((struct thing *)from)->bytes, end = *(float *)((struct thing *)to)->bytes;
    return start <= 0 || end <= 0 ? INVALID_VALUE : (*ms = end - start, OK);
}
int cuEventRecord(void *event, void *stream) {
    check(event, "event");
    check(stream, "stream");
    float *reached = ((struct thing *)event)->bytes;
    if (*reached >= 0)
        *reached = now_ms += 0.125f;
    return OK;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    return check(event, "event"), check(stream, "stream"), OK;
}
int cuEventSynchronize(void *event) { return check(event, "event"), is("work-fails") ? LAUNCH_FAILED : OK; }

int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t len, void *stream) {
    return check(stream, "stream"), memcpy((void *)to, from, len), OK;
}
int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t len, void *stream) {
    return check(stream, "stream"), memcpy(to, (void *)from, len), OK;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void *stream, void **params, void **extra) {
    check(function, "function");
    check(stream, "stream");
    const int fits = x && y && z && threads_x * threads_y * threads_z == 256 && shared <= shared_max() && params[0] && !extra;
    return !fits ? INVALID_VALUE : is("launch-fails") ? LAUNCH_FAILED : OK;
}

int cuStreamBeginCapture_v2(void *stream, int mode) { return check(stream, "stream"), capturing = 1, OK; }
int cuStreamEndCapture(void *stream, void **graph) {
    check(stream, "stream");
    if (!capturing)
        fail("no capture");
    capturing = 0;
    return make(graph, "graph", 1);
}
int cuGraphDestroy(void *graph) { return destroy(graph, "graph"); }
int cuGraphInstantiateWithFlags(void **exec, void *graph, u64 flags) {
    return check(graph, "graph"), make(exec, "exec", 1);
}
int cuGraphExecDestroy(void *exec) { return destroy(exec, "exec"); }
int cuGraphLaunch(void *exec, void *stream) { return check(exec, "exec"), check(stream, "stream"), OK; }
#endif
