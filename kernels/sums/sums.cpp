// The number of vectors of each code, and their sum: each code's vectors in ascending order, by one thread, in float64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/compiled/parallel.h"
#include "common/compiled/vectors.h"

namespace {

constexpr int64_t CHUNK = 64;  // codes, or vectors
constexpr int64_t SHARES = 8;  // of a thread, at least where there are so many codes: some have more vectors than others

// The codes that a thread takes at a time.
int64_t codes_at_a_time(int64_t size, int64_t threads) {
    return std::clamp<int64_t>(size / (SHARES * threads), 1, CHUNK);
}

// The positions of each code's vectors, ascending, one code after another; first[k] is where code k starts.
void sort_by_code(const int64_t* indices, int64_t count, int64_t size, std::vector<int64_t>& first,
                  std::vector<int64_t>& order) {
    first.assign(size + 1, 0);
    for (int64_t n = 0; n < count; ++n)
        if (indices[n] >= 0) ++first[indices[n] + 1];
    for (int64_t k = 0; k < size; ++k) first[k + 1] += first[k];
    order.resize(first[size]);
    std::vector<int64_t> next(first.begin(), first.end() - 1);
    for (int64_t n = 0; n < count; ++n)
        if (indices[n] >= 0) order[next[indices[n]]++] = n;
}

template <class T>
void code_sums(const T* x, const int64_t* indices, int64_t count, int64_t size, int64_t dim, int64_t threads, T* counts,
               T* sums) {
    std::vector<int64_t> first, order;
    sort_by_code(indices, count, size, first, order);
    in_chunks(size, codes_at_a_time(size, threads), threads, [&] {
        return [&, total = std::vector<double>(dim)](int64_t begin, int64_t end) mutable {
            for (int64_t k = begin; k < end; ++k) {
                std::fill(total.begin(), total.end(), 0.0);
                for (int64_t i = first[k]; i < first[k + 1]; ++i)
                    for (int64_t d = 0; d < dim; ++d) total[d] += x[order[i] * dim + d];
                for (int64_t d = 0; d < dim; ++d) sums[k * dim + d] = T(total[d]);
                counts[k] = T(first[k + 1] - first[k]);
            }
        };
    });
}

// 2 weight gradient (x − code); zero without a code.
template <class T>
void vector_gradient(const T* loss_gradient, const T* x, const T* codes, const int64_t* indices, int64_t count,
                     int64_t dim, double weight, int64_t threads, T* result) {
    for_each(count, CHUNK, threads, [&](int64_t n) {
        T pull = T(2 * weight) * loss_gradient[n];
        for (int64_t i = n * dim; i < (n + 1) * dim; ++i) result[i] = indices[n] < 0 ? T(0) : pull * (x[i] - codes[i]);
    });
}

// For each code the sum over its vectors of 2 weight loss_gradient (code − x) and, unless null, of codes_gradient.
template <class T>
void codebook_gradient(const T* codes_gradient, const T* loss_gradient, const T* x, const T* codes,
                       const int64_t* indices, int64_t count, int64_t size, int64_t dim, double weight, int64_t threads,
                       T* result) {
    std::vector<int64_t> first, order;
    sort_by_code(indices, count, size, first, order);
    in_chunks(size, codes_at_a_time(size, threads), threads, [&] {
        return [&, total = std::vector<double>(dim)](int64_t begin, int64_t end) mutable {
            for (int64_t k = begin; k < end; ++k) {
                std::fill(total.begin(), total.end(), 0.0);
                for (int64_t i = first[k]; i < first[k + 1]; ++i) {
                    int64_t start = order[i] * dim;
                    double push = 2 * weight * loss_gradient[order[i]];
                    for (int64_t d = 0; d < dim; ++d) total[d] += push * (double(codes[start + d]) - x[start + d]);
                    if (codes_gradient)
                        for (int64_t d = 0; d < dim; ++d) total[d] += codes_gradient[start + d];
                }
                for (int64_t d = 0; d < dim; ++d) result[k * dim + d] = T(total[d]);
            }
        };
    });
}

// Replaces a batch's counts and sums by the updated averages: decay · average + (1 − decay) · batch.
template <class T>
void interpolate(T* counts, T* sums, const T* cluster_size, const T* embedding_sum, int64_t size, int64_t dim,
                 double decay, int64_t threads) {
    std::atomic<bool> any{false};
    for_each(size, CHUNK, threads, [&](int64_t k) {
        T zero = 0;
        for (int64_t d = 0; d < dim; ++d) zero += sums[k * dim + d] * T(0);
        if (zero != 0) {  // the sum exceeds the range of its dtype: the code takes none of it
            counts[k] = 0;
            for (int64_t d = 0; d < dim; ++d) sums[k * dim + d] = 0;
        }
        if (counts[k] > 0) any = true;
    });
    T keep = T(any ? decay : 1.0), take = 1 - keep;
    for_each(size, CHUNK, threads, [&](int64_t k) {
        counts[k] = keep * cluster_size[k] + take * counts[k];
        for (int64_t d = 0; d < dim; ++d)
            sums[k * dim + d] = keep * embedding_sum[k * dim + d] + take * sums[k * dim + d];
    });
}

}  // namespace

extern "C" {

// x [count, dim], indices [count] (−1: does not count) → counts [size], sums [size, dim].
void quantizers_code_sums(const float* x, const int64_t* indices, int64_t count, int64_t size, int64_t dim,
                          int64_t threads, float* counts, float* sums) {
    code_sums(x, indices, count, size, dim, threads, counts, sums);
}

void quantizers_code_sums_double(const double* x, const int64_t* indices, int64_t count, int64_t size, int64_t dim,
                                 int64_t threads, double* counts, double* sums) {
    code_sums(x, indices, count, size, dim, threads, counts, sums);
}

// The same, combined with the moving averages cluster_size [size] and embedding_sum [size, dim].
void quantizers_ema_code_sums(const float* x, const int64_t* indices, int64_t count, const float* cluster_size,
                              const float* embedding_sum, int64_t size, int64_t dim, double decay, int64_t threads,
                              float* counts, float* sums) {
    code_sums(x, indices, count, size, dim, threads, counts, sums);
    interpolate(counts, sums, cluster_size, embedding_sum, size, dim, decay, threads);
}

void quantizers_ema_code_sums_double(const double* x, const int64_t* indices, int64_t count, const double* cluster_size,
                                     const double* embedding_sum, int64_t size, int64_t dim, double decay,
                                     int64_t threads, double* counts, double* sums) {
    code_sums(x, indices, count, size, dim, threads, counts, sums);
    interpolate(counts, sums, cluster_size, embedding_sum, size, dim, decay, threads);
}

// loss_gradient [count], x and its codes [count, dim], indices [count] → [count, dim].
void quantizers_vector_gradient(const float* loss_gradient, const float* x, const float* codes, const int64_t* indices,
                                int64_t count, int64_t dim, double weight, int64_t threads, float* result) {
    vector_gradient(loss_gradient, x, codes, indices, count, dim, weight, threads, result);
}

void quantizers_vector_gradient_double(const double* loss_gradient, const double* x, const double* codes,
                                       const int64_t* indices, int64_t count, int64_t dim, double weight,
                                       int64_t threads, double* result) {
    vector_gradient(loss_gradient, x, codes, indices, count, dim, weight, threads, result);
}

// codes_gradient [count, dim], or null for zero, and the arguments above → [size, dim].
void quantizers_codebook_gradient(const float* codes_gradient, const float* loss_gradient, const float* x,
                                  const float* codes, const int64_t* indices, int64_t count, int64_t size, int64_t dim,
                                  double weight, int64_t threads, float* result) {
    codebook_gradient(codes_gradient, loss_gradient, x, codes, indices, count, size, dim, weight, threads, result);
}

void quantizers_codebook_gradient_double(const double* codes_gradient, const double* loss_gradient, const double* x,
                                         const double* codes, const int64_t* indices, int64_t count, int64_t size,
                                         int64_t dim, double weight, int64_t threads, double* result) {
    codebook_gradient(codes_gradient, loss_gradient, x, codes, indices, count, size, dim, weight, threads, result);
}
}
