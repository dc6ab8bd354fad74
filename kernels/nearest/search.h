// The nearest code, exactly: equations (1) to (5) of kernels/nearest/README.md, scores in float32, the decision in float64.
//
// Every tile of codes whose smallest score is within the rounding bound of the row's smallest is scored again. If
// a single code remains, it is certain to be the nearest; otherwise float64 decides.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "nearest/rounding.h"
#include "nearest/tile.h"

namespace {

constexpr int64_t SEGMENT_BYTES = 1 << 18;        // codes that stay in the second-level cache for a block of rows
constexpr int STRIDE = 4;                         // tiles whose minima are compared at once
constexpr int64_t SEGMENT_TILES = 256;            // whose minima stay in the first-level cache
constexpr int64_t BLOCK = 4 * ROWS;               // rows per segment of codes
constexpr float INFINITE = std::numeric_limits<float>::infinity(), LARGEST = std::numeric_limits<float>::max();

struct Codebook {
    const float *codes, *packed, *bias, *centre;
    int64_t size, dim;
    double radius, largest_bias;  // of the packed codes: norm and |bias|
    int64_t tiles() const { return (size + CODES - 1) / CODES; }
};

struct Candidate {
    int64_t tile;  // of codes
    float score;   // the smallest in it
};

double squared_distance(const float* x, const float* code, int64_t dim) {
    constexpr int HALF = WIDTH / 2;
    Doubles total = {};
    int64_t d = 0;
    for (; d + HALF <= dim; d += HALF) {
        Doubles difference = widen(x + d) - widen(code + d);
        total += difference * difference;
    }
    double result = sum(total);
    for (; d < dim; ++d) {
        double difference = double(x[d]) - double(code[d]);
        result += difference * difference;
    }
    return result;
}

// Codes are compared by distance: equation (5).
struct ByDistance {
    static double value(const float* x, const Codebook& book, int64_t k) {
        return squared_distance(x, book.codes + k * book.dim, book.dim);
    }
    // For a row that float32 cannot score: the codes whose distance may be the smallest, by (1) to (3) in float64. The
    // difference form alone cannot distinguish them if rounding to the row's own length hides their differences.
    static void candidates(const float* x, const Codebook& book, std::vector<int64_t>& codes) {
        std::vector<double> scores(book.size);
        double least = std::numeric_limits<double>::infinity(), square = 0;
        for (int64_t d = 0; d < book.dim; ++d) {
            double centred = double(x[d]) - book.centre[d];
            square += centred * centred;
        }
        for (int64_t k = 0; k < book.size; ++k) {
            double score = 0;
            for (int64_t d = 0; d < book.dim; ++d) {
                double code = double(book.codes[k * book.dim + d]) - book.centre[d];
                score += (0.5 * code - (double(x[d]) - book.centre[d])) * code;
            }
            scores[k] = score;
            least = score < least ? score : least;
        }
        double bound = relative_error(book.dim) * (std::sqrt(square) * book.radius + book.largest_bias);
        for (int64_t k = 0; k < book.size; ++k)
            if (scores[k] <= least + 2 * bound) codes.push_back(k);
    }
    static double threshold(double smallest, const float*, const Codebook& book) {
        double tie = 1 + relative_error(book.dim);
        return smallest * tie * tie;
    }
};

// Codes are compared by −(x·code + bias). Every form of it cancels, so scores within twice the bound count as equal.
struct ByScore {
    static void candidates(const float*, const Codebook& book, std::vector<int64_t>& codes) {
        for (int64_t k = 0; k < book.size; ++k) codes.push_back(k);
    }
    static double value(const float* x, const Codebook& book, int64_t k) {
        const float* code = book.codes + k * book.dim;
        double score = book.bias[k];
        for (int64_t d = 0; d < book.dim; ++d) score -= double(x[d]) * code[d];
        return score;
    }
    static double threshold(double smallest, const float* x, const Codebook& book) {
        double square = 0;
        for (int64_t d = 0; d < book.dim; ++d) square += double(x[d]) * x[d];
        double scale = std::sqrt(square) * book.radius + book.largest_bias;
        return smallest + 2 * relative_error(book.dim) * scale;
    }
};

// The state of a block of rows while it passes over the codebook.
template <class Compare>
class Search {
   public:
    explicit Search(const Codebook& book)
        : book(book),
          score(choose_score_tile(book.dim)),
          tiles(BLOCK * book.dim),
          minima(SEGMENT_TILES * ROWS),
          rows(BLOCK * book.dim),
          lists(BLOCK) {}

    void run(const float* x, int64_t count, int64_t* indices, float* distances, float* chosen) {
        enter(x, count);
        int64_t step = std::clamp<int64_t>(SEGMENT_BYTES / (4 * CODES * book.dim), 1, SEGMENT_TILES);
        for (int64_t first = 0; first < book.tiles(); first += step)
            for (int64_t row = 0; row < count; row += ROWS) pass(row, first, std::min(first + step, book.tiles()));
        for (int64_t row = 0; row < count; ++row) {
            double nearest = std::numeric_limits<double>::quiet_NaN();
            int64_t index = finite[row] ? decide(x + row * book.dim, row, &nearest) : -1;
            indices[row] = index;
            if (distances) distances[row] = float(nearest);
            if (!chosen) continue;
            if (index >= 0)
                std::copy_n(book.codes + index * book.dim, book.dim, chosen + row * book.dim);
            else
                std::fill_n(chosen + row * book.dim, book.dim, 0.0f);
        }
    }

   private:
    const Codebook& book;
    const ScoreTile score;
    std::vector<float> rows, tiles, minima;
    std::vector<std::vector<Candidate>> lists;
    std::vector<int64_t> codes;
    std::vector<double> values;
    float least[BLOCK], margin[BLOCK];
    bool finite[BLOCK], scored[BLOCK];

    // Centred rows, also transposed into tiles [dim][ROWS], and the margin 2E of each; zeros for rows that are not scored.
    void enter(const float* x, int64_t count) {
        for (int64_t row = 0; row < (count + ROWS - 1) / ROWS * ROWS; ++row) {
            float* centred = rows.data() + row * book.dim;
            double square = row < count ? centre(x + row * book.dim, centred, &finite[row]) : INFINITE;
            double norm = std::sqrt(square);
            double scale = norm * book.radius + book.largest_bias;
            double bound = score_error_float32(book.dim, scale, norm, book.radius);
            scored[row] = scale <= QUANTIZERS_LARGEST_SCORE && (row >= count || finite[row]);
            least[row] = scored[row] ? INFINITE : -INFINITE;
            margin[row] = scored[row] ? float(QUANTIZERS_CANDIDATE_MARGIN * bound) : 0.0f;
            lists[row].clear();
            if (!scored[row]) std::fill_n(centred, book.dim, 0.0f);
        }
        for (int64_t row = 0; row < count; row += ROWS)
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

    // x − centre to `centred`; its squared norm.
    double centre(const float* x, float* centred, bool* is_finite) {
        Vector squares = {}, zeros = {};
        float square = 0, zero = 0;
        int64_t d = 0;
        for (; d + WIDTH <= book.dim; d += WIDTH) {
            Vector value = load(x + d) - load(book.centre + d);
            zeros += load(x + d) * 0.0f;
            squares += value * value;
            store(centred + d, value);
        }
        for (; d < book.dim; ++d) {
            float value = x[d] - book.centre[d];
            zero += x[d] * 0.0f;
            square += value * value;
            centred[d] = value;
        }
        *is_finite = zero + sum(zeros) == 0.0f;
        float total = square + sum(squares);
        if (total <= LARGEST || !*is_finite) return total;
        double wide = 0;  // for a row longer than 2·10¹⁹, whose square overflows float32
        for (d = 0; d < book.dim; ++d) wide += double(centred[d]) * centred[d];
        return wide;
    }

    // Compares a tile of rows with the code tiles [first, last), and lists the tiles that may contain a nearest code.
    void pass(int64_t row, int64_t first, int64_t last) {
        for (int64_t tile = first; tile < last; ++tile)
            score(tiles.data() + row * book.dim, book.packed + tile * CODES * book.dim, book.bias + tile * CODES,
                  book.dim, minima.data() + (tile - first) * ROWS);
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

    // The code of a row: the only one with a score near the smallest, or else the lowest of the best in float64.
    int64_t decide(const float* x, int64_t row, double* best) {
        codes.clear();
        if (scored[row])
            for (const Candidate& candidate : lists[row]) rescore(candidate, row);
        if (codes.size() == 1) {
            *best = Compare::value(x, book, codes[0]);
            return codes[0];
        }
        if (codes.empty()) Compare::candidates(x, book, codes);  // not scored, or no code is finite
        values.clear();
        double smallest = std::numeric_limits<double>::infinity();
        for (int64_t k : codes) {
            values.push_back(Compare::value(x, book, k));
            smallest = values.back() < smallest ? values.back() : smallest;
        }
        if (!(smallest < std::numeric_limits<double>::infinity())) return -1;
        double threshold = Compare::threshold(smallest, x, book);
        size_t first = 0;
        while (!(values[first] <= threshold)) ++first;
        *best = values[first];
        return codes[first];
    }

    // Appends the codes of a candidate tile with scores near the row's smallest to `codes`.
    void rescore(const Candidate& candidate, int64_t row) {
        float threshold = std::min(least[row] + margin[row], LARGEST);  // an absent code has an infinite score
        if (!(candidate.score <= threshold)) return;
        const float* packed = book.packed + candidate.tile * CODES * book.dim;
        const float* centred = rows.data() + row * book.dim;
        for (int p = 0; p < CODES; p += WIDTH) {
            Vector score = load(book.bias + candidate.tile * CODES + p), other[3] = {};  // independent sums
            int64_t d = 0;
            for (; d + 4 <= book.dim; d += 4) {
                score -= centred[d] * load(packed + d * CODES + p);
                for (int i = 1; i < 4; ++i) other[i - 1] += centred[d + i] * load(packed + (d + i) * CODES + p);
            }
            for (; d < book.dim; ++d) score -= centred[d] * load(packed + d * CODES + p);
            score -= other[0] + other[1] + other[2];
            unsigned near = at_most(score, broadcast(threshold));
            if (p + WIDTH > CODES) near &= (1u << (CODES - p)) - 1;  // lanes past the tile
            for (; near; near &= near - 1) codes.push_back(candidate.tile * CODES + p + __builtin_ctz(near));
        }
    }
};

}  // namespace
