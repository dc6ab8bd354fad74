// The nearest code of each row, and the row's highest score: packing, threads, and the C interface.
#include "nearest/search.h"

namespace {

// The mean of the finite codes, and which codes are not finite.
void mean_code(const float* codes, int64_t size, int64_t dim, std::vector<char>& broken, float* mean) {
    std::vector<double> total(dim, 0.0);
    int64_t finite = 0;
    for (int64_t k = 0; k < size; ++k) {
        float zero = 0;
        for (int64_t d = 0; d < dim; ++d) zero += codes[k * dim + d] * 0.0f;
        broken[k] = zero != 0;
        if (broken[k]) continue;
        ++finite;
        for (int64_t d = 0; d < dim; ++d) total[d] += codes[k * dim + d];
    }
    for (int64_t d = 0; d < dim; ++d) mean[d] = float(finite ? total[d] / finite : 0.0);
}

template <class Compare>
void search_all(const float* x, int64_t count, const Codebook& book, int64_t threads, int64_t* indices,
                float* distances, float* chosen) {
    int64_t share = ((count + threads - 1) / threads + ROWS - 1) / ROWS * ROWS;
    int64_t step = std::clamp<int64_t>(share, ROWS, BLOCK);
#pragma omp parallel num_threads(threads)
    {
        Search<Compare> search(book);
#pragma omp for schedule(dynamic)
        for (int64_t start = 0; start < count; start += step)
            search.run(x + start * book.dim, std::min(step, count - start), indices + start,
                       distances ? distances + start : nullptr, chosen ? chosen + start * book.dim : nullptr);
    }
}

}  // namespace

extern "C" {

int64_t quantizers_codes_per_tile() { return CODES; }
// Floats after a packed array that are read but not used.
int64_t quantizers_padding() { return WIDTH; }

// codes [size, dim] → packed [tiles][dim][CODES], bias [tiles][CODES] and, by mean, centre [dim]; tiles = ⌈size / CODES⌉.
// With own_bias [size] the centre is zero and the bias its negative, else ½‖code − centre‖². Writes to extent[2] the
// largest norm of a centred code and the largest |bias|.
void quantizers_pack(const float* codes, const float* own_bias, int64_t size, int64_t dim, int64_t threads, float* packed,
                     float* bias, float* centre, double* extent) {
    std::vector<char> broken(size, 0);
    if (own_bias)
        std::fill_n(centre, dim, 0.0f);
    else
        mean_code(codes, size, dim, broken, centre);
    double largest = 0, largest_bias = 0;
#pragma omp parallel for num_threads(threads) reduction(max : largest, largest_bias)
    for (int64_t tile = 0; tile < (size + CODES - 1) / CODES; ++tile)
        for (int64_t k = tile * CODES; k < (tile + 1) * CODES; ++k) {
            bool absent = k >= size || broken[k];
            float* column = packed + tile * CODES * dim + k % CODES;
            double square = 0;
            for (int64_t d = 0; d < dim; ++d) {
                float value = absent ? 0.0f : codes[k * dim + d] - centre[d];
                square += double(value) * value;
                column[d * CODES] = value;
            }
            double offset = absent ? 0.0 : own_bias ? -double(own_bias[k]) : 0.5 * square;
            bias[k] = absent ? INFINITE : float(offset);
            largest = std::max(largest, square);
            largest_bias = std::max(largest_bias, std::abs(offset));
        }
    extent[0] = std::sqrt(largest);
    extent[1] = largest_bias;
}

// x [count, dim] → indices [count], squared distances [count] and, unless null, the chosen codes [count, dim].
void quantizers_nearest(const float* x, int64_t count, const float* codes, int64_t size, int64_t dim,
                        const float* packed, const float* bias, const float* centre, const double* extent,
                        int64_t threads, int64_t* indices, float* distances, float* chosen) {
    Codebook book{codes, packed, bias, centre, size, dim, extent[0], extent[1]};
    search_all<ByDistance>(x, count, book, threads, indices, distances, chosen);
}

// argmax x·code − bias for x [count, dim], with the bias and the zero centre that were packed → indices [count].
void quantizers_highest_score(const float* x, int64_t count, const float* codes, int64_t size, int64_t dim,
                              const float* packed, const float* bias, const float* centre, const double* extent,
                              int64_t threads, int64_t* indices) {
    Codebook book{codes, packed, bias, centre, size, dim, extent[0], extent[1]};
    search_all<ByScore>(x, count, book, threads, indices, nullptr, nullptr);
}
}
