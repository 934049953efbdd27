// The functions that fused.py calls: a training step of a HASN of the sizes that the file is compiled for.
//
// In: the parameters as one array of f32 in the order of model.py, images, targets. Out: the loss, the gradients in the same
// order, the output. Thread i takes the samples i, i + threads and so on, so that sums, and with them a run, repeat exactly.
#include <memory>
#include <thread>

#include "backward.h"

#if defined(__AMX_BF16__) || defined(STAND_IN)
#include "tile.h"
typedef Tile Format;
#elif defined(__AVX512BF16__)
#include "pair.h"
typedef Pair Format;
#else
typedef Float Format;
#endif

namespace {

struct Worker {
    std::unique_ptr<Sample<Format>> sample;
    Gradients<Format>* gradients = nullptr;
    double loss = 0;
};
std::vector<Worker> workers;
Weights<Format>* weights = nullptr;

// Zeros on huge pages, kept for good.
template <class T>
T* keep() {
    const size_t page = 2 << 20, size = (sizeof(T) + 2 * page - 1) / page * page;
    char* p = (char*)mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = (char*)(((uintptr_t)p + page - 1) / page * page);
    madvise(p, size, MADV_HUGEPAGE);
    return (T*)p;
}

template <class F>
void each_thread(int threads, F f) {
    std::vector<std::thread> started;
    for (int i = 1; i < threads; i++) started.emplace_back([&f, i] { f(i); });
    f(0);
    for (std::thread& t : started) t.join();
}

}  // namespace

extern "C" {

long fused_parameters() { return Layout().end; }
// Whether the system lets this process use the level.
int fused_possible() { return Format::possible(); }

// x: [n, IN, h, w]. out, if not null: [n, IN, h * SCALE, w * SCALE], as target. With gradients null it is the forward pass alone.
// Returns the loss, NaN for an image below 15 x 15.
double fused_step(const float* parameters, const float* x, const float* target, int n, int h, int w, const float* loss_weights, float eps,
                  int threads, float* out, float* gradients) {
    if (h < 15 || w < 15 || n < 1) return NAN;
    const Layout at;
    Clock clock;
    if (!weights) weights = keep<Weights<Format>>();
    weights->set(parameters, at);
    threads = std::max(1, std::min(threads, n));
    if ((int)workers.size() < threads) workers.resize(threads);
    clock.done(PACK);
    Loss loss = {0, 0, 0, eps, loss_weights == nullptr, n};
    if (loss_weights) loss.l1 = loss_weights[0], loss.charbonnier = loss_weights[1], loss.psnr = loss_weights[2];
    const long in_values = (long)IN * h * w, out_values = (long)OUT * h * w;
    each_thread(threads, [&](int i) {
        Worker& worker = workers[i];
        if (!worker.sample || worker.sample->h != h || worker.sample->w != w) worker.sample.reset(), worker.sample.reset(new Sample<Format>(h, w));
        if (!worker.gradients) worker.gradients = keep<Gradients<Format>>();
        if (gradients) memset((void*)worker.gradients, 0, sizeof(Gradients<Format>)), worker.loss = 0;
        Sample<Format>& sample = *worker.sample;
        const unsigned control = _mm_getcsr();
        _mm_setcsr(control | 0x8040);  // denormals are zeros
        Format::begin();
        Clock clock;
        for (int k = i; k < n; k += threads) {
            sample.forward(x + k * in_values, *weights, clock);
            if (out) sample.put_image(out + k * out_values);
            if (gradients) {
                worker.loss += sample.set_loss(target + k * out_values, loss);
                clock.done(LOSS);
                sample.backward(*weights, *worker.gradients, clock);
            }
        }
        Format::end();
        _mm_setcsr(control);
    });
    if (!gradients) return 0;
    clock = Clock();
    double total = workers[0].loss;
    float* sum = (float*)workers[0].gradients;
    for (int i = 1; i < threads; i++) {
        const float* more = (const float*)workers[i].gradients;
        for (size_t k = 0; k < sizeof(Gradients<Format>) / sizeof(float); k++) sum[k] += more[k];
        total += workers[i].loss;
    }
    put_gradients(*workers[0].gradients, parameters, at, gradients);
    clock.done(PUT);
    return total;
}

// Cycles of each part since the last call, and the parts' names.
const char* fused_spent(double* cycles) {
    for (int i = 0; i < PARTS; i++) cycles[i] = spent[i].exchange(0);
    return PART_NAMES;
}
}
