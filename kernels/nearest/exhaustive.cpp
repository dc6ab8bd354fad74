// The nearest code, and the highest score, of float64 input.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/compiled/parallel.h"
#include "nearest/doubles.h"
#include "nearest/rounding.h"

namespace {

constexpr int64_t CHUNK = 16;  // rows
constexpr double INFINITE = std::numeric_limits<double>::infinity();

// The lowest code that is not above the threshold for the smallest value; −1 without a finite value.
template <class Threshold>
int64_t lowest(const std::vector<double>& values, Threshold threshold, double* best) {
    double smallest = INFINITE;
    for (double value : values) smallest = value < smallest ? value : smallest;
    if (!(smallest < INFINITE)) return -1;
    size_t k = 0;
    while (!(values[k] <= threshold(smallest))) ++k;
    *best = values[k];
    return k;
}

double norm(const double* x, int64_t dim) {
    double square = 0;
    for (int64_t d = 0; d < dim; ++d) square += x[d] * x[d];
    return std::sqrt(square);
}

}  // namespace

extern "C" {

// Like quantizers_nearest, in float64: equation (5) of kernels/nearest/README.md over all codes.
void quantizers_nearest_double(const double* x, int64_t count, const double* codes, int64_t size, int64_t dim,
                               int64_t threads, int64_t* indices, double* distances, double* chosen) {
    double tie = 1 + relative_error(dim);
    in_chunks(count, CHUNK, threads, [&] {
        return [&, values = std::vector<double>(size)](int64_t begin, int64_t end) mutable {
            for (int64_t row = begin; row < end; ++row) {
                const double* vector = x + row * dim;
                for (int64_t k = 0; k < size; ++k) values[k] = compare<false>(vector, codes + k * dim, dim);
                double nearest = std::numeric_limits<double>::quiet_NaN();
                auto threshold = [&](double least) { return least * tie * tie; };
                int64_t index = is_finite(vector, dim) ? lowest(values, threshold, &nearest) : -1;
                indices[row] = index;
                distances[row] = nearest;
                if (chosen && index >= 0) std::copy_n(codes + index * dim, dim, chosen + row * dim);
                if (chosen && index < 0) std::fill_n(chosen + row * dim, dim, 0.0);
            }
        };
    });
}

// Like quantizers_highest_score, in float64.
void quantizers_highest_score_double(const double* x, int64_t count, const double* keys, const double* bias,
                                     int64_t size, int64_t dim, int64_t threads, int64_t* indices) {
    double radius = 0, largest_bias = 0;
    for (int64_t k = 0; k < size; ++k) {
        radius = std::max(radius, norm(keys + k * dim, dim));
        largest_bias = std::max(largest_bias, std::abs(bias[k]));
    }
    in_chunks(count, CHUNK, threads, [&] {
        return [&, values = std::vector<double>(size)](int64_t begin, int64_t end) mutable {
            for (int64_t row = begin; row < end; ++row) {
                const double* vector = x + row * dim;
                for (int64_t k = 0; k < size; ++k) values[k] = compare<true>(vector, keys + k * dim, dim) - bias[k];
                double bound = relative_error(dim) * (norm(vector, dim) * radius + largest_bias), best;
                indices[row] = lowest(values, [&](double least) { return least + 2 * bound; }, &best);
            }
        };
    });
}
}
