// Scores of a few rows against the codes of one leaf. The lanes of a register are codes; rows are broadcast, so that
// any rows can be scored together.
#pragma once
#include "nearest/tile.h"

namespace {

constexpr int BATCH = 4;  // rows scored at once: 12 accumulators, 3 registers of codes and one of a row

// bias − Σ row·code for NUMBER rows [dim] against VECTORS registers of codes [dim][VECTORS · WIDTH].
template <int NUMBER, int VECTORS>
void score_rows(const float* const* rows, const float* codes, const float* bias, int64_t dim, Vector* scores) {
    constexpr int UNROLL = NUMBER * VECTORS >= 6 ? 1 : NUMBER * VECTORS >= 3 ? 2 : 4;  // independent sums hide latency
    Vector sums[UNROLL][NUMBER][VECTORS] = {};
    auto accumulate = [&](int64_t d, int u) __attribute__((always_inline)) {
        Vector code[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) code[v] = load(codes + (d * VECTORS + v) * WIDTH);
#pragma GCC unroll 4
        for (int r = 0; r < NUMBER; ++r) {
            Vector value = broadcast(rows[r][d]);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sums[u][r][v] += value * code[v];
        }
    };
    int64_t d = 0;
    for (; d + UNROLL <= dim; d += UNROLL)
#pragma GCC unroll 4
        for (int u = 0; u < UNROLL; ++u) accumulate(d + u, u);
    for (; d < dim; ++d) accumulate(d, 0);
#pragma GCC unroll 4
    for (int r = 0; r < NUMBER; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
            Vector total = sums[0][r][v];
#pragma GCC unroll 4
            for (int u = 1; u < UNROLL; ++u) total += sums[u][r][v];
            scores[r * VECTORS + v] = load(bias + v * WIDTH) - total;
        }
}

// The same for 1 to BATCH rows.
template <int VECTORS>
void score_some_rows(int number, const float* const* rows, const float* codes, const float* bias, int64_t dim,
                     Vector* scores) {
    switch (number) {
        case 1: return score_rows<1, VECTORS>(rows, codes, bias, dim, scores);
        case 2: return score_rows<2, VECTORS>(rows, codes, bias, dim, scores);
        case 3: return score_rows<3, VECTORS>(rows, codes, bias, dim, scores);
        default: return score_rows<BATCH, VECTORS>(rows, codes, bias, dim, scores);
    }
}

}  // namespace
