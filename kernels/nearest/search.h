// The nearest code by comparison with all codes, exactly: equations (1) to (5) of kernels/nearest/README.md, scores in
// float32, the decision in float64.
//
// Every tile of codes whose smallest score is within the rounding bound of the row's smallest is scored again. If
// a single code remains, it is certain to be the nearest; otherwise float64 decides.
#pragma once
#include "nearest/decide.h"

namespace {

constexpr int64_t SEGMENT_BYTES = 1 << 18;        // codes that stay in the second-level cache for a block of rows
constexpr int STRIDE = 4;                         // tiles whose minima are compared at once
constexpr int64_t SEGMENT_LEAVES = 256 / LEAF_TILES;  // whose minima stay in the first-level cache
constexpr int64_t BLOCK = 4 * ROWS;               // rows per segment of codes

struct Candidate {
    int64_t tile;  // of codes
    float score;   // the smallest in it
};

// The state of a block of rows while it passes over the codebook.
template <class Compare>
class Search {
   public:
    explicit Search(const Codebook& book)
        : book(book),
          decision(book),
          score(choose_score_tile(book.dim)),
          tiles(BLOCK * book.dim),
          minima(SEGMENT_LEAVES * LEAF_TILES * ROWS),
          rows(BLOCK * book.dim),
          lists(BLOCK) {}

    void run(const float* x, int64_t count, const Found& found, int64_t first_row) {
        enter(x, count);
        int64_t step = std::clamp<int64_t>(SEGMENT_BYTES / (4 * LEAF * book.dim), 1, SEGMENT_LEAVES) * LEAF_TILES;
        for (int64_t first = 0; first < book.tiles(); first += step)
            for (int64_t row = 0; row < count; row += ROWS) pass(row, first, std::min(first + step, book.tiles()));
        for (int64_t row = 0; row < count; ++row) {
            codes.clear();
            if (state[row].scored)
                for (const Candidate& candidate : lists[row]) rescore(candidate, row);
            decision.write(x + row * book.dim, state[row].finite, codes, found, first_row + row);
        }
    }

   private:
    const Codebook& book;
    Decision<Compare> decision;
    const ScoreTile score;
    std::vector<float> tiles, minima, rows;
    std::vector<std::vector<Candidate>> lists;
    std::vector<int64_t> codes;
    Row state[BLOCK];
    float least[BLOCK], margin[BLOCK];

    // Centred rows, also transposed into tiles [dim][ROWS]; zeros for rows that are not scored.
    void enter(const float* x, int64_t count) {
        int64_t padded = (count + ROWS - 1) / ROWS * ROWS;
        for (int64_t row = 0; row < count; ++row) state[row] = enter_row(book, x + row * book.dim, &rows[row * book.dim]);
        std::fill(rows.begin() + count * book.dim, rows.begin() + padded * book.dim, 0.0f);
        for (int64_t row = 0; row < padded; ++row) {
            bool scored = row < count && state[row].scored;
            least[row] = scored ? INFINITE : -INFINITE;
            margin[row] = scored ? state[row].margin : 0.0f;
            lists[row].clear();
        }
        for (int64_t row = 0; row < padded; row += ROWS)
            transpose(rows.data() + row * book.dim, tiles.data() + row * book.dim);
    }

    // [ROWS][dim] → [dim][ROWS], a cache line of channels at a time.
    void transpose(const float* from, float* to) {
        constexpr int64_t LINE = 16;
        for (int64_t first = 0; first < book.dim; first += LINE)
            for (int64_t row = 0; row < ROWS; ++row)
                for (int64_t d = first; d < std::min(first + LINE, book.dim); ++d)
                    to[d * ROWS + row] = from[row * book.dim + d];
    }

    // Compares a tile of rows with the code tiles [first, last), and lists the tiles that may contain a nearest code.
    void pass(int64_t row, int64_t first, int64_t last) {
        for (int64_t tile = first; tile < last; ++tile)
            score(tiles.data() + row * book.dim, book.tile(tile), book.bias + tile * CODES, book.dim,
                  minima.data() + (tile - first) * ROWS);
        for (int64_t t = last - first; t % STRIDE; ++t) std::fill_n(minima.data() + t * ROWS, ROWS, INFINITE);
        for (int64_t lanes = row; lanes < row + ROWS; lanes += WIDTH) {
            const float* column = minima.data() + (lanes - row);
            Vector smallest = load(least + lanes);
            for (int64_t t = 0; t < last - first; ++t) smallest = minimum(smallest, load(column + t * ROWS));
            store(least + lanes, smallest);
            Vector threshold = minimum(smallest + load(margin + lanes), broadcast(LARGEST));  // excludes absent codes
            for (int64_t t = 0; t < last - first; t += STRIDE) {
                uint64_t near = 0;  // few tiles qualify, so one branch covers all of them
                for (int i = 0; i < STRIDE; ++i)
                    near |= uint64_t(at_most(load(column + (t + i) * ROWS), threshold)) << i * WIDTH;
                for (; near; near &= near - 1) {
                    int bit = __builtin_ctzll(near), lane = bit % WIDTH;
                    int64_t tile = t + bit / WIDTH;
                    lists[lanes + lane].push_back({first + tile, column[tile * ROWS + lane]});
                }
            }
        }
    }

    // Appends the codes of a candidate tile with scores near the row's smallest to `codes`.
    void rescore(const Candidate& candidate, int64_t row) {
        float threshold = std::min(least[row] + margin[row], LARGEST);  // an absent code has an infinite score
        if (!(candidate.score <= threshold)) return;
        const float* packed = book.tile(candidate.tile);
        const float* centred = rows.data() + row * book.dim;
        for (int p = 0; p < CODES; p += WIDTH) {
            Vector score = load(book.bias + candidate.tile * CODES + p), other[3] = {};  // independent sums
            int64_t d = 0;
            for (; d + 4 <= book.dim; d += 4) {
                score -= centred[d] * load(packed + d * LEAF + p);
                for (int i = 1; i < 4; ++i) other[i - 1] += centred[d + i] * load(packed + (d + i) * LEAF + p);
            }
            for (; d < book.dim; ++d) score -= centred[d] * load(packed + d * LEAF + p);
            score -= other[0] + other[1] + other[2];
            unsigned near = at_most(score, broadcast(threshold));
            if (p + WIDTH > CODES) near &= (1u << (CODES - p)) - 1;  // lanes past the tile
            for (; near; near &= near - 1)
                codes.push_back(book.code(candidate.tile * CODES + p + __builtin_ctz(near)));
        }
    }
};

}  // namespace
