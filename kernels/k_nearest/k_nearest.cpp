// The k nearest codes of each row: threads, and the C interface.
#include <memory>

#include "common/compiled/parallel.h"
#include "k_nearest/search.h"
#include "nearest/doubles.h"

namespace {

constexpr int64_t ROWS_OF_DOUBLES = 16;  // that a thread takes at a time

// The k nearest codes of a float64 row, by the distances to all codes, at the front of `found`.
void nearest_of_all(const double* x, int64_t k, const double* codes, int64_t size, int64_t dim, Ranking& ranking,
                    std::vector<Scored>& found) {
    found.clear();
    if (!is_finite(x, dim)) return;
    for (int64_t code = 0; code < size; ++code) {
        double distance = compare<false>(x, codes + code * dim, dim);
        if (std::isfinite(distance)) found.push_back({code, 0, distance});
    }
    double tie = 1 + relative_error(dim);
    auto distance = [](const Scored& each) { return each.distance; };
    keep_nearest(found, k, distance, [&](double largest) { return largest * tie * tie; });
    ranking.run(found, {0, tie}, 0, k);
}

}  // namespace

extern "C" {

// x [count, dim] → indices [count, k] and squared distances [count, k], nearest first. The codes are packed as for
// quantizers_nearest.
void quantizers_k_nearest(const float* x, int64_t count, int64_t k, const float* codes, int64_t size, int64_t dim,
                          const float* packed, const float* bias, const float* centre, const double* extent,
                          const int32_t* order, int64_t threads, int64_t* indices, float* distances) {
    Codebook book{codes, packed, bias, centre, order, size, dim, extent[0], extent[1]};
    int64_t share = ((count + threads - 1) / threads + ROWS - 1) / ROWS * ROWS;
    in_chunks(count, std::clamp<int64_t>(share, ROWS, BLOCK), threads, [&] {
        return [&, search = std::make_unique<KSearch>(book, k)](int64_t begin, int64_t end) {
            search->run(x + begin * dim, end - begin, indices + begin * k, distances + begin * k);
        };
    });
}

// The same in float64.
void quantizers_k_nearest_double(const double* x, int64_t count, int64_t k, const double* codes, int64_t size, int64_t dim,
                                 int64_t threads, int64_t* indices, double* distances) {
    in_chunks(count, ROWS_OF_DOUBLES, threads, [&] {
        return [&, ranking = Ranking(), found = std::vector<Scored>()](int64_t begin, int64_t end) mutable {
            for (int64_t row = begin; row < end; ++row) {
                nearest_of_all(x + row * dim, k, codes, size, dim, ranking, found);
                write_first(found, k, indices + row * k, distances + row * k);
            }
        };
    });
}
}
