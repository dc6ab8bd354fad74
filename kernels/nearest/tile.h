// The layout of a packed codebook, and the scores of a tile of rows against a tile of codes, all in registers: the
// innermost loop of the search through all codes.
//
// The lanes of a register are rows of x; codes are broadcast. For each tile of codes only the smallest score is stored:
// one instruction per (row, code) pair besides the multiplications, instead of three with an index. Where a pair takes so
// many multiplications that other instructions hardly count, all scores are stored, and none is computed twice.
#pragma once
#include "common/compiled/vectors.h"

namespace {

constexpr int COLUMNS = 2, ROWS = COLUMNS * WIDTH;
constexpr int CODES = WIDTH == 16 ? 12 : 6;  // 24 accumulators of AVX-512's 32 registers, else 12 of 16
constexpr int LEAF_VECTORS = 3, LEAF = LEAF_VECTORS * WIDTH;  // codes that are packed together, [dim][LEAF]; see leaf.h
constexpr int LEAF_TILES = LEAF / CODES;
static_assert(LEAF % CODES == 0, "a leaf is made of whole tiles");

// Scores of rows [dim][ROWS] against CODES codes of a leaf [dim][LEAF]: with EACH all of them, to scores [CODES][ROWS];
// else the smallest of each row, to [ROWS]. DIM is dim if it is known at compile time, else 0.
template <int DIM, bool EACH>
void score_tile(const float* rows, const float* codes, const float* bias, int64_t dim, float* result) {
    Vector scores[CODES][COLUMNS];  // in registers after all loops over it are unrolled
#pragma GCC unroll 16
    for (int k = 0; k < CODES; ++k)
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; ++c) scores[k][c] = broadcast(bias[k]);
    auto accumulate = [&](int64_t d) __attribute__((always_inline)) {
        Vector row[COLUMNS];
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; ++c) row[c] = load(rows + d * ROWS + c * WIDTH);
#pragma GCC unroll 16
        for (int k = 0; k < CODES; ++k)
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; ++c) scores[k][c] -= codes[d * LEAF + k] * row[c];
    };
    if constexpr (DIM > 0) {
#pragma GCC unroll 16
        for (int d = 0; d < DIM; ++d) accumulate(d);
    } else {
        for (int64_t d = 0; d < dim; ++d) accumulate(d);
    }
    if constexpr (EACH) {
#pragma GCC unroll 16
        for (int k = 0; k < CODES; ++k)
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; ++c) store(result + k * ROWS + c * WIDTH, scores[k][c]);
        return;
    }
#pragma GCC unroll 4
    for (int c = 0; c < COLUMNS; ++c) {
        Vector least = scores[0][c];
#pragma GCC unroll 16
        for (int k = 1; k < CODES; ++k) least = minimum(least, scores[k][c]);
        store(result + c * WIDTH, least);
    }
}

using ScoreTile = void (*)(const float*, const float*, const float*, int64_t, float*);

inline ScoreTile choose_score_tile(int64_t dim, bool each) {
    static constexpr ScoreTile UNROLLED[] = {
        score_tile<0, false>, score_tile<1, false>, score_tile<2, false>, score_tile<3, false>, score_tile<4, false>,
        score_tile<5, false>, score_tile<6, false>, score_tile<7, false>, score_tile<8, false>};
    return each ? score_tile<0, true> : UNROLLED[dim <= 8 ? dim : 0];
}

}  // namespace
