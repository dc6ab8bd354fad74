#include "common/compiled/threads.h"

#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace {

struct Work {
    Member member;
    void* context;
};

// The interface of libgomp, which the runtimes of LLVM and Intel have too, except on Windows.
using GompParallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

// The interface of the runtimes of LLVM and Intel. The location is the structure ident_t of their kmp.h.
struct Location {
    int32_t reserved = 0, flags = 2, unused[2] = {};  // 2: called by compiled code
    const char* source = ";unknown;unknown;0;0;;";
};
using KmpBody = void (*)(int32_t* thread, int32_t* bound, Work* work);
using KmpForkCall = void (*)(Location*, int32_t arguments, KmpBody body, ...);
using KmpThreadNumber = int32_t (*)(Location*);
using KmpPushThreads = void (*)(Location*, int32_t thread, int32_t threads);

GompParallel gomp_parallel = nullptr;
KmpForkCall kmp_fork_call = nullptr;
KmpThreadNumber kmp_thread_number = nullptr;
KmpPushThreads kmp_push_threads = nullptr;
int (*team_size)() = nullptr;

void run_in_gomp(int threads, Work work) {
    gomp_parallel(
        [](void* data) {
            auto* work = static_cast<Work*>(data);
            work->member(work->context, team_size());
        },
        &work, unsigned(threads), 0);
}

void run_in_kmp(int threads, Work work) {
    static Location location;
    kmp_push_threads(&location, kmp_thread_number(&location), threads);
    KmpBody body = [](int32_t*, int32_t*, Work* work) { work->member(work->context, team_size()); };
    kmp_fork_call(&location, 1, body, &work);
}

// For a PyTorch without OpenMP. The team must be known before its first member runs, so each starts behind a gate.
void run_in_new_threads(int threads, Work work) {
    std::vector<std::thread> others;
    std::atomic<int> team{0};
    auto member = [&] {
        while (!team) std::this_thread::yield();
        work.member(work.context, team);
    };
    try {
        while (int(others.size()) < threads - 1) others.emplace_back(member);
    } catch (const std::system_error&) {  // the system has no more threads
    }
    team = int(others.size()) + 1;
    member();
    for (std::thread& other : others) other.join();
}

}  // namespace

void run_in_threads(int threads, Member member, void* context) {
    auto run = gomp_parallel ? run_in_gomp : kmp_fork_call ? run_in_kmp : run_in_new_threads;
    run(threads, {member, context});
}

extern "C" {

void quantizers_use_gomp(GompParallel parallel, int (*get_num_threads)()) {
    gomp_parallel = parallel;
    team_size = get_num_threads;
}

void quantizers_use_kmp(KmpForkCall fork_call, KmpThreadNumber thread_number, KmpPushThreads push_threads,
                        int (*get_num_threads)()) {
    kmp_fork_call = fork_call;
    kmp_thread_number = thread_number;
    kmp_push_threads = push_threads;
    team_size = get_num_threads;
}
}
