// FSQ's levels: equation (1) of kernels/levels/README.md, in float64 for every dtype of the vectors.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/compiled/functions.h"
#include "common/compiled/parallel.h"

namespace {

constexpr int64_t ROWS = 64;
constexpr double MARGIN = QUANTIZERS_LEVEL_MARGIN, LARGEST_MARGIN = QUANTIZERS_LARGEST_LEVEL_MARGIN;

// The constants of equation (1) for each channel, repeated for ROWS rows so that one loop covers all values.
struct Levels {
    std::vector<double> half_range, offset, shift, half, last;  // half is ⌊L/2⌋, last is L − 1
    std::vector<int64_t> weight;

    Levels(const int64_t* levels, int64_t dim) {
        uint64_t product = 1;  // the last product may overflow int64; it is not used
        for (int64_t i = 0; i < ROWS * dim; ++i) {
            double count = double(levels[i % dim]), steps = (count - 1) / 2;
            half_range.push_back(steps + std::min(steps * MARGIN, LARGEST_MARGIN));
            offset.push_back(levels[i % dim] % 2 == 0 ? 0.5 : 0.0);
            shift.push_back(count > 2 ? std::atanh(offset[i] / half_range[i]) : 0.0);
            half.push_back(double(levels[i % dim] / 2));
            last.push_back(count - 1);
            if (i < dim) weight.push_back(int64_t(product)), product *= uint64_t(levels[i]);
        }
    }
};

template <class T>
void round_levels(const T* z, int64_t count, const int64_t* counts, int64_t dim, double slope, int64_t threads, T* codes,
                  int64_t* indices) {
    const Levels levels(counts, dim);
    in_chunks(count, ROWS, threads, [&] {
        return [&, digits = std::vector<double>(ROWS * dim)](int64_t begin, int64_t end) mutable {
            for (int64_t i = 0; i < (end - begin) * dim; ++i) {
                double bounded = hyperbolic_tangent(slope * z[begin * dim + i] + levels.shift[i]);
                double digit = std::nearbyint(bounded * levels.half_range[i] - levels.offset[i]) + levels.half[i];
                digit = digit > 0 ? digit : 0.0;  // also for NaN
                digits[i] = digit < levels.last[i] ? digit : levels.last[i];
                codes[begin * dim + i] = T(digits[i] - levels.half[i]) / T(levels.half[i]);
            }
            for (int64_t row = begin; row < end; ++row) {
                int64_t index = 0;
                for (int64_t d = 0; d < dim; ++d) index += int64_t(digits[(row - begin) * dim + d]) * levels.weight[d];
                indices[row] = index;
            }
        };
    });
}

template <class T>
void backward(const T* gradient, const T* z, int64_t count, const int64_t* counts, int64_t dim, double slope,
              int64_t threads, T* result) {
    const Levels levels(counts, dim);
    auto differentiate = [&](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < (end - begin) * dim; ++i) {
            double t = hyperbolic_tangent(slope * z[begin * dim + i] + levels.shift[i]);
            double derivative = slope * (1 - t) * (1 + t) * levels.half_range[i] / levels.half[i];
            result[begin * dim + i] = T(gradient[begin * dim + i] * derivative);
        }
    };
    in_chunks(count, ROWS, threads, [&] { return differentiate; });
}

}  // namespace

extern "C" {

// z [count, dim], levels [dim] → codes [count, dim], indices [count].
void quantizers_round_levels(const float* z, int64_t count, const int64_t* levels, int64_t dim, double slope,
                             int64_t threads, float* codes, int64_t* indices) {
    round_levels(z, count, levels, dim, slope, threads, codes, indices);
}

void quantizers_round_levels_double(const double* z, int64_t count, const int64_t* levels, int64_t dim, double slope,
                                    int64_t threads, double* codes, int64_t* indices) {
    round_levels(z, count, levels, dim, slope, threads, codes, indices);
}

// The gradient of the codes and z, [count, dim] → the gradient of z [count, dim].
void quantizers_round_levels_backward(const float* gradient, const float* z, int64_t count, const int64_t* levels,
                                      int64_t dim, double slope, int64_t threads, float* result) {
    backward(gradient, z, count, levels, dim, slope, threads, result);
}

void quantizers_round_levels_backward_double(const double* gradient, const double* z, int64_t count,
                                             const int64_t* levels, int64_t dim, double slope, int64_t threads,
                                             double* result) {
    backward(gradient, z, count, levels, dim, slope, threads, result);
}
}
