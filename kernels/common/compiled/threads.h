// Threads from the OpenMP runtime that PyTorch uses, connected when the library is loaded (openmp.py). So the library
// needs no OpenMP at compile time, and two runtimes never compete for the cores.
#pragma once

// What a thread runs: its context, and the number of threads that run it.
using Member = void (*)(void* context, int team);

// Calls member(context, team) in at most `threads` threads, this one among them, and returns when all have returned.
void run_in_threads(int threads, Member member, void* context);
