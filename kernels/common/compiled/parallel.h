// Loops over threads that take small chunks as they come, and that sleep while they wait for each other.
//
// OpenMP's own barrier spins for milliseconds. If other processes compete for the processor, a thread that spins uses up
// the share that it would need after the wait.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

extern "C" int omp_get_num_threads();  // of <omp.h>, which a compiler may come without

namespace {

class Gathering {
   public:
    // Returns once `count` threads have arrived.
    void arrive(int count) {
        if (++arrived == count) {
            std::lock_guard<std::mutex> lock(mutex);
            all.notify_all();
            return;
        }
        for (int i = 0; i < BRIEF; ++i) {
            if (arrived == count) return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        std::unique_lock<std::mutex> lock(mutex);
        all.wait(lock, [&] { return arrived == count; });
    }

   private:
    static constexpr int BRIEF = 1000;  // some ten microseconds, about as long as it takes to wake a thread
    std::atomic<int> arrived{0};
    std::mutex mutex;
    std::condition_variable all;
};

// Calls make() in each thread, and its result with (begin, end) for chunks of [0, count).
template <class Make>
void in_chunks(int64_t count, int64_t chunk, int64_t threads, Make make) {
    if (threads <= 1 || count <= chunk) {
        auto work = make();
        for (int64_t begin = 0; begin < count; begin += chunk) work(begin, std::min(begin + chunk, count));
        return;
    }
    std::atomic<int64_t> next{0};
    Gathering gathering;
#pragma omp parallel num_threads(threads)
    {
        auto work = make();
        for (int64_t begin; (begin = next.fetch_add(chunk)) < count;) work(begin, std::min(begin + chunk, count));
        gathering.arrive(omp_get_num_threads());
    }
}

// Calls function(i) for each i of [0, count), chunk by chunk.
template <class Function>
void for_each(int64_t count, int64_t chunk, int64_t threads, Function function) {
    in_chunks(count, chunk, threads, [&] {
        return [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) function(i);
        };
    });
}

}  // namespace
