// A block of rows in the frame of a codebook, and their scores against all of its codes, a segment at a time.
#pragma once
#include <vector>

#include "nearest/codebook.h"

namespace {

constexpr int64_t SEGMENT_BYTES = 1 << 18;        // codes that stay in the second-level cache for a block of rows
constexpr int STRIDE = 4;                         // units whose minima are compared at once
constexpr int64_t SEGMENT_LEAVES = 256 / LEAF_TILES;  // whose minima stay in the first-level cache
constexpr int64_t BLOCK = 4 * ROWS;               // rows per segment of codes
constexpr int64_t CODES_PER_CHANNEL = 8;          // up to which storing all scores costs less than scoring a tile again

// Codes that may be the nearest: a unit of a RowBlock.
struct Candidate {
    int64_t unit;
    float score;  // the smallest in it
};

class RowBlock {
   public:
    Row state[BLOCK];

    explicit RowBlock(const Codebook& book)
        : book(book),
          unit(book.size <= CODES_PER_CHANNEL * book.dim ? 1 : CODES),
          score(choose_score_tile(book.dim, unit == 1)),
          tiles(BLOCK * book.dim),
          minima(SEGMENT_LEAVES * LEAF_TILES * ROWS),
          rows(BLOCK * book.dim) {}

    static int64_t padded(int64_t count) { return (count + ROWS - 1) / ROWS * ROWS; }

    // Centred rows, also transposed into tiles [dim][ROWS]; zeros for rows that are not scored, and up to a whole tile.
    void enter(const float* x, int64_t count) {
        for (int64_t row = 0; row < count; ++row) state[row] = enter_row(book, x + row * book.dim, &rows[row * book.dim]);
        std::fill(rows.begin() + count * book.dim, rows.begin() + padded(count) * book.dim, 0.0f);
        for (int64_t row = 0; row < padded(count); row += ROWS)
            transpose(rows.data() + row * book.dim, tiles.data() + row * book.dim);
    }

    // How many units the codes have: tiles, or single codes.
    int64_t units() const { return book.tiles() * (CODES / unit); }

    // Calls visit(row, first, number, minima) for each tile of rows and each segment of codes. minima [number][ROWS] has the
    // smallest score in each of the segment's `number` units, from `first` on, and +∞ up to a multiple of STRIDE.
    template <class Visit>
    void score_all(int64_t count, Visit visit) {
        const int64_t parts = CODES / unit;  // of a tile
        int64_t step = std::clamp<int64_t>(SEGMENT_BYTES / (4 * LEAF * book.dim), 1, SEGMENT_LEAVES / parts) * LEAF_TILES;
        for (int64_t first = 0; first < book.tiles(); first += step)
            for (int64_t row = 0; row < count; row += ROWS) {
                int64_t last = std::min(first + step, book.tiles());
                for (int64_t tile = first; tile < last; ++tile)
                    score(tiles.data() + row * book.dim, book.tile(tile), book.bias + tile * CODES, book.dim,
                          minima.data() + (tile - first) * parts * ROWS);
                int64_t number = (last - first) * parts;
                for (int64_t t = number; t % STRIDE; ++t) std::fill_n(minima.data() + t * ROWS, ROWS, INFINITE);
                visit(row, first * parts, number, minima.data());
            }
    }

    // Calls take(code, score) for the codes of a candidate whose score is at most `threshold`.
    template <class Take>
    void codes_of(const Candidate& candidate, int64_t row, float threshold, Take take) const {
        if (candidate.score > threshold) return;
        if (unit == 1)
            take(book.code(candidate.unit), candidate.score);
        else
            rescore(candidate.unit, row, threshold, take);
    }

   private:
    const Codebook& book;
    const int64_t unit;  // codes whose smallest score is stored
    const ScoreTile score;
    std::vector<float> tiles, minima, rows;

    template <class Take>
    void rescore(int64_t tile, int64_t row, float threshold, Take take) const {
        const float* packed = book.tile(tile);
        const float* centred = rows.data() + row * book.dim;
        for (int p = 0; p < CODES; p += WIDTH) {
            Vector score = load(book.bias + tile * CODES + p), other[3] = {};  // independent sums
            int64_t d = 0;
            for (; d + 4 <= book.dim; d += 4) {
                score -= centred[d] * load(packed + d * LEAF + p);
                for (int i = 1; i < 4; ++i) other[i - 1] += centred[d + i] * load(packed + (d + i) * LEAF + p);
            }
            for (; d < book.dim; ++d) score -= centred[d] * load(packed + d * LEAF + p);
            score -= other[0] + other[1] + other[2];
            unsigned near = at_most(score, broadcast(threshold));
            if (p + WIDTH > CODES) near &= (1u << (CODES - p)) - 1;  // lanes past the tile
            for (; near; near &= near - 1) {
                int lane = __builtin_ctz(near);
                take(book.code(tile * CODES + p + lane), score[lane]);
            }
        }
    }

    // [ROWS][dim] → [dim][ROWS].
    void transpose(const float* from, float* to) {
        int64_t d = 0;
        for (; d + SQUARE <= book.dim; d += SQUARE)
            for (int64_t row = 0; row < ROWS; row += SQUARE)
                transpose_square(from + row * book.dim + d, book.dim, to + d * ROWS + row, ROWS);
        for (int64_t row = 0; row < ROWS; ++row)
            for (int64_t rest = d; rest < book.dim; ++rest) to[rest * ROWS + row] = from[row * book.dim + rest];
    }
};

// Calls take(unit, lane, smallest score) for the units of `column` [number][ROWS] and the lanes whose smallest score is at
// most the lane's threshold. `threshold()` is read for STRIDE units at a time.
template <class Threshold, class Take>
void for_near_units(const float* column, int64_t number, Threshold threshold, Take take) {
    for (int64_t t = 0; t < number; t += STRIDE) {
        Vector limit = threshold();
        uint64_t near = 0;  // few units qualify, so one branch covers all of them
        for (int i = 0; i < STRIDE; ++i) near |= uint64_t(at_most(load(column + (t + i) * ROWS), limit)) << i * WIDTH;
        for (; near; near &= near - 1) {
            int bit = __builtin_ctzll(near), lane = bit % WIDTH;
            int64_t unit = t + bit / WIDTH;
            take(unit, lane, column[unit * ROWS + lane]);
        }
    }
}

}  // namespace
