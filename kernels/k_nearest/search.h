// The k nearest codes of each row of a block, by scores in float32 and the decision in float64.
//
// The smallest scores of k units belong to k codes, so the k-th of them bounds the k-th smallest score. Every unit whose
// smallest score is within the rounding bound of that is a candidate: equation (4) of kernels/k_nearest/README.md.
#pragma once
#include "k_nearest/ranking.h"
#include "nearest/decide.h"
#include "nearest/row_block.h"

namespace {

class KSearch {
   public:
    KSearch(const Codebook& book, int64_t k)
        : book(book), block(book), k(k), bounded(k <= block.units()), lists(BLOCK), smallest(bounded ? BLOCK : 0) {}

    // Writes indices and squared distances [count, k].
    void run(const float* x, int64_t count, int64_t* indices, float* distances) {
        enter(x, count);
        block.score_all(count, [&](int64_t row, int64_t unit, int64_t number, const float* minima) {
            pass(row, unit, number, minima);
        });
        for (int64_t row = 0; row < count; ++row) {
            decide(x + row * book.dim, row);
            write_first(codes, k, indices + row * k, distances + row * k);
        }
    }

   private:
    const Codebook& book;
    RowBlock block;
    const int64_t k;
    const bool bounded;  // whether k units have scores
    std::vector<std::vector<Candidate>> lists;
    std::vector<std::vector<float>> smallest;  // the k smallest scores of units so far, a heap with the largest in front
    std::vector<Scored> codes;
    Ranking ranking;
    float least[BLOCK], limit[BLOCK];  // the smallest score, and the largest that a candidate may have

    void enter(const float* x, int64_t count) {
        block.enter(x, count);
        for (int64_t row = 0; row < block.padded(count); ++row) {
            least[row] = INFINITE;
            limit[row] = row < count && block.state[row].scored ? LARGEST : -INFINITE;  // excludes absent codes
            lists[row].clear();
            if (bounded) smallest[row].clear();
        }
    }

    // Lists the units of codes, of a segment, that may contain one of the k nearest codes.
    void pass(int64_t row, int64_t first, int64_t number, const float* minima) {
        for (int64_t lanes = row; lanes < row + ROWS; lanes += WIDTH)
            for_near_units(minima + (lanes - row), number, [&] { return load(limit + lanes); },
                           [&](int64_t unit, int lane, float score) {
                               lists[lanes + lane].push_back({first + unit, score});
                               lower(lanes + lane, score);
                           });
    }

    // Lowers the row's limit for the smallest score of another unit.
    void lower(int64_t row, float score) {
        least[row] = std::min(least[row], score);
        if (!bounded) return;
        std::vector<float>& heap = smallest[row];
        if (int64_t(heap.size()) == k) {
            if (score >= heap.front()) return;
            std::pop_heap(heap.begin(), heap.end());
            heap.back() = score;
        } else {
            heap.push_back(score);
        }
        std::push_heap(heap.begin(), heap.end());
        if (int64_t(heap.size()) == k) limit[row] = std::min(heap.front() + block.state[row].margin, LARGEST);
    }

    // The k nearest codes of x, in order, at the front of `codes`; none for a row that is not finite.
    void decide(const float* x, int64_t row) {
        codes.clear();
        const Row& state = block.state[row];
        if (!state.finite) return;
        if (state.scored) {
            double nearest = std::min(least[row] + state.margin, LARGEST);
            list_codes(row, nearest);
            keep_near(state.margin, nearest);
        } else {
            for (int64_t code = 0; code < book.size; ++code) codes.push_back({code, 0, 0});
        }
        Resolution resolution{2 * score_error(x, book), 1 + relative_error(book.dim)};
        double nearest = rescore(x) + resolution.margin;
        keep_near(resolution.margin, nearest);
        std::sort(codes.begin(), codes.end(), [](const Scored& a, const Scored& b) {
            return a.score < b.score || (a.score == b.score && a.code < b.code);
        });
        for (Scored& each : codes) each.distance = squared_distance(x, book.codes + each.code * book.dim, book.dim);
        ranking.run(codes, resolution, nearest, k);
    }

    // Appends the codes of the row's candidates. What is found lowers the limit for what follows.
    void list_codes(int64_t row, double nearest) {
        float threshold = limit[row];
        size_t enough = 2 * k + CODES;
        for (const Candidate& candidate : lists[row]) {
            block.codes_of(candidate, row, threshold,
                           [&](int64_t code, float score) { codes.push_back({code, score, 0}); });
            if (codes.size() < enough) continue;
            double largest = keep_near(block.state[row].margin, nearest);
            threshold = std::min(threshold, std::nextafter(float(largest), INFINITE));
            enough = 2 * codes.size() + CODES;
        }
    }

    // Keeps the codes that may be one of the k nearest. Returns the largest score of such a code.
    double keep_near(double margin, double nearest) {
        auto score = [](const Scored& each) { return each.score; };
        return keep_nearest(codes, k, score, [&](double largest) { return std::max(largest + margin, nearest); });
    }

    // Scores the codes in float64, and leaves out those that are not finite. Returns the smallest score.
    double rescore(const float* x) {
        double smallest_score = std::numeric_limits<double>::infinity();
        size_t kept = 0;
        for (const Scored& each : codes) {
            double score = score_in_double(x, book, each.code);
            if (!std::isfinite(score)) continue;
            codes[kept++] = {each.code, score, 0};
            smallest_score = std::min(smallest_score, score);
        }
        codes.resize(kept);
        return smallest_score;
    }
};

}  // namespace
