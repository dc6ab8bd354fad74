// A codebook in the layout of the search.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/compiled/parallel.h"
#include "nearest/codebook.h"

namespace {

constexpr int64_t PARTS = 64;  // of the sum of all codes, the same for any number of threads

// The mean of the finite codes, and which codes are not finite.
void mean_code(const float* codes, int64_t size, int64_t dim, int64_t threads, std::vector<char>& broken, float* mean) {
    std::vector<double> totals(PARTS * dim, 0.0);
    std::vector<int64_t> finite(PARTS, 0);
    for_each(PARTS, 1, threads, [&](int64_t part) {
        double* total = &totals[part * dim];
        for (int64_t k = part * size / PARTS; k < (part + 1) * size / PARTS; ++k) {
            float zero = 0;
            for (int64_t d = 0; d < dim; ++d) zero += codes[k * dim + d] * 0.0f;
            broken[k] = zero != 0;
            if (broken[k]) continue;
            ++finite[part];
            for (int64_t d = 0; d < dim; ++d) total[d] += codes[k * dim + d];
        }
    });
    int64_t count = 0;
    for (int64_t part = 0; part < PARTS; ++part) count += finite[part];
    for (int64_t d = 0; d < dim; ++d) {
        double total = 0;
        for (int64_t part = 0; part < PARTS; ++part) total += totals[part * dim + d];
        mean[d] = float(count ? total / count : 0.0);
    }
}

}  // namespace

extern "C" {

int64_t quantizers_codes_per_leaf() { return LEAF; }
// Floats after a packed array that are read but not used.
int64_t quantizers_padding() { return WIDTH; }

// codes [size, dim] → packed [leaves][dim][LEAF], bias [leaves][LEAF] and, by mean, centre [dim]; leaves = ⌈size / LEAF⌉.
// Place i has code order[i], or code i if the order is null. With own_bias [size] the centre is zero and the bias its
// negative, else ½‖code − centre‖². Writes to extent[2] the largest norm of a centred code and the largest |bias|.
void quantizers_pack(const float* codes, const float* own_bias, const int32_t* order, int64_t size, int64_t dim,
                     int64_t threads, float* packed, float* bias, float* centre, double* extent) {
    std::vector<char> broken(size, 0);
    if (own_bias)
        std::fill_n(centre, dim, 0.0f);
    else
        mean_code(codes, size, dim, threads, broken, centre);
    int64_t leaves = (size + LEAF - 1) / LEAF;
    std::vector<double> largest(leaves, 0.0), largest_bias(leaves, 0.0);
    for_each(leaves, 16, threads, [&](int64_t leaf) {
        for (int64_t place = leaf * LEAF; place < (leaf + 1) * LEAF; ++place) {
            int64_t k = order && place < size ? order[place] : place;
            bool absent = k >= size || broken[k];
            float* column = packed + leaf * LEAF * dim + place % LEAF;
            double square = 0;
            for (int64_t d = 0; d < dim; ++d) {
                float value = absent ? 0.0f : codes[k * dim + d] - centre[d];
                square += double(value) * value;
                column[d * LEAF] = value;
            }
            double offset = absent ? 0.0 : own_bias ? -double(own_bias[k]) : 0.5 * square;
            bias[place] = absent ? INFINITE : float(offset);
            largest[leaf] = std::max(largest[leaf], square);
            largest_bias[leaf] = std::max(largest_bias[leaf], std::abs(offset));
        }
    });
    extent[0] = std::sqrt(*std::max_element(largest.begin(), largest.end()));
    extent[1] = *std::max_element(largest_bias.begin(), largest_bias.end());
}
}
