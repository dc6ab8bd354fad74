// The nearest code by comparison with all codes, exactly: equations (1) to (5) of kernels/nearest/README.md, scores in
// float32, the decision in float64.
//
// Every unit of codes whose smallest score is within the rounding bound of the row's smallest is a candidate. If a single
// code remains, it is certain to be the nearest; otherwise float64 decides.
#pragma once
#include "nearest/decide.h"
#include "nearest/row_block.h"

namespace {

// The state of a block of rows while it passes over the codebook.
template <class Compare>
class Search {
   public:
    explicit Search(const Codebook& book) : book(book), block(book), decision(book), lists(BLOCK) {}

    void run(const float* x, int64_t count, const Found& found, int64_t first_row) {
        enter(x, count);
        block.score_all(count, [&](int64_t row, int64_t unit, int64_t number, const float* minima) {
            pass(row, unit, number, minima);
        });
        for (int64_t row = 0; row < count; ++row) {
            codes.clear();
            if (block.state[row].scored) list_codes(row);
            decision.write(x + row * book.dim, block.state[row].finite, codes, found, first_row + row);
        }
    }

   private:
    const Codebook& book;
    RowBlock block;
    Decision<Compare> decision;
    std::vector<std::vector<Candidate>> lists;
    std::vector<int64_t> codes;
    float least[BLOCK], margin[BLOCK];

    void enter(const float* x, int64_t count) {
        block.enter(x, count);
        for (int64_t row = 0; row < block.padded(count); ++row) {
            bool scored = row < count && block.state[row].scored;
            least[row] = scored ? INFINITE : -INFINITE;
            margin[row] = scored ? block.state[row].margin : 0.0f;
            lists[row].clear();
        }
    }

    // Lists the units of codes, of a segment, that may contain a nearest code.
    void pass(int64_t row, int64_t first, int64_t number, const float* minima) {
        for (int64_t lanes = row; lanes < row + ROWS; lanes += WIDTH) {
            const float* column = minima + (lanes - row);
            Vector smallest = load(least + lanes);
            for (int64_t t = 0; t < number; ++t) smallest = minimum(smallest, load(column + t * ROWS));
            store(least + lanes, smallest);
            Vector threshold = minimum(smallest + load(margin + lanes), broadcast(LARGEST));  // excludes absent codes
            for_near_units(column, number, [&] { return threshold; }, [&](int64_t unit, int lane, float score) {
                lists[lanes + lane].push_back({first + unit, score});
            });
        }
    }

    // Appends the codes with scores near the row's smallest to `codes`.
    void list_codes(int64_t row) {
        float threshold = std::min(least[row] + margin[row], LARGEST);  // an absent code has an infinite score
        for (const Candidate& candidate : lists[row])
            block.codes_of(candidate, row, threshold, [&](int64_t code, float) { codes.push_back(code); });
    }
};

}  // namespace
