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

#include "common/compiled/threads.h"

namespace {

// Something that happens once, and that threads wait for.
class Event {
   public:
    void happen() {
        std::lock_guard<std::mutex> lock(mutex);
        happened = true;
        all.notify_all();
    }

    void wait() {
        for (int i = 0; i < BRIEF; ++i) {
            if (happened) return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        std::unique_lock<std::mutex> lock(mutex);
        all.wait(lock, [&] { return happened.load(); });
    }

   private:
    static constexpr int BRIEF = 1000;  // some ten microseconds, about as long as it takes to wake a thread
    std::atomic<bool> happened{false};
    std::mutex mutex;
    std::condition_variable all;
};

// The chunks of a loop over [0, count).
class Chunks {
   public:
    Chunks(int64_t count, int64_t size) : count(count), size(size), left((count + size - 1) / size) {}

    // Calls work(begin, end) for chunks that no other thread has taken. Whether it finished the last one that was missing.
    template <class Work>
    bool take(Work& work) {
        bool last = false;
        for (int64_t begin; (begin = next.fetch_add(size)) < count;) {
            work(begin, std::min(begin + size, count));
            last = --left == 0;
        }
        return last;
    }

   private:
    const int64_t count, size;
    std::atomic<int64_t> next{0}, left;
};

// Calls body() in each thread, and returns when all have returned.
template <class Body>
void in_threads(int64_t threads, Body body) {
    if (threads <= 1) return body();
    std::atomic<int> finished{0};
    Event gathered;
    auto member = [&](int team) {
        body();
        if (++finished == team) gathered.happen();
        gathered.wait();
    };
    run_in_threads(
        int(threads), [](void* context, int team) { (*static_cast<decltype(member)*>(context))(team); }, &member);
}

// Calls make() in each thread, and its result with (begin, end) for chunks of [0, count).
template <class Make>
void in_chunks(int64_t count, int64_t chunk, int64_t threads, Make make) {
    Chunks chunks(count, chunk);
    in_threads(std::min(threads, (count + chunk - 1) / chunk), [&] {
        auto work = make();
        chunks.take(work);
    });
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
