// The number of vectors of each code, and their sum: each code's vectors in ascending order, in float64.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/compiled/parallel.h"
#include "common/compiled/vectors.h"

namespace {

constexpr int64_t CHUNK = 64;        // codes, or vectors
constexpr int64_t SHARES = 8;        // of a thread, at least where there are so many codes: some have more vectors than others
constexpr int64_t LINE = 16;         // channels that threads share among them
constexpr int64_t CACHED = 1 << 18;  // bytes of sums that stay in the second-level cache

// The codes that a thread takes at a time.
int64_t codes_at_a_time(int64_t size, int64_t threads) {
    return std::clamp<int64_t>(size / (SHARES * threads), 1, CHUNK);
}

// The number of vectors of each code.
std::vector<int64_t> count_by_code(const int64_t* indices, int64_t count, int64_t size) {
    std::vector<int64_t> numbers(size);
    for (int64_t n = 0; n < count; ++n)
        if (indices[n] >= 0) ++numbers[indices[n]];
    return numbers;
}

// The positions of each code's vectors, ascending, one code after another; first[k] is where code k starts.
void sort_by_code(const int64_t* indices, int64_t count, int64_t size, std::vector<int64_t>& first,
                  std::vector<int64_t>& order) {
    std::vector<int64_t> numbers = count_by_code(indices, count, size);
    first.assign(size + 1, 0);
    std::partial_sum(numbers.begin(), numbers.end(), first.begin() + 1);
    order.resize(first[size]);
    std::vector<int64_t> next(first.begin(), first.end() - 1);
    for (int64_t n = 0; n < count; ++n)
        if (indices[n] >= 0) order[next[indices[n]]++] = n;
}

// A thread has some codes, and gathers their vectors.
template <class T, class Add>
void add_by_code(const int64_t* indices, int64_t count, int64_t size, int64_t dim, int64_t threads, Add add, T* sums) {
    std::vector<int64_t> first, order;
    sort_by_code(indices, count, size, first, order);
    in_chunks(size, codes_at_a_time(size, threads), threads, [&] {
        return [&, total = std::vector<double>(dim)](int64_t begin, int64_t end) mutable {
            for (int64_t k = begin; k < end; ++k) {
                std::fill(total.begin(), total.end(), 0.0);
                for (int64_t i = first[k]; i < first[k + 1]; ++i) add(order[i], 0, dim, total.data());
                for (int64_t d = 0; d < dim; ++d) sums[k * dim + d] = T(total[d]);
            }
        };
    });
}

// A thread has some channels of all codes, and reads the vectors in order. It does not matter which code has how many.
template <class T, class Add>
void add_by_channel(const int64_t* indices, int64_t count, int64_t size, int64_t dim, int64_t width, int64_t threads,
                    Add add, T* sums) {
    in_chunks(dim, width, threads, [&] {
        return [&](int64_t begin, int64_t end) {
            int64_t part = end - begin;
            std::vector<double> totals(size * part);
            for (int64_t n = 0; n < count; ++n)
                if (indices[n] >= 0) add(n, begin, end, totals.data() + indices[n] * part);
            for (int64_t k = 0; k < size; ++k)
                for (int64_t d = begin; d < end; ++d) sums[k * dim + d] = T(totals[k * part + d - begin]);
        };
    });
}

// Writes sums [size, dim]. Calls add(n, begin, end, total) for the vectors of each code, ascending, to add what vector n
// contributes to the channels from `begin` to `end`, which are in total [end − begin].
template <class T, class Add>
void add_up(const int64_t* indices, int64_t count, int64_t size, int64_t dim, int64_t threads, Add add, T* sums) {
    int64_t width = ((dim + threads - 1) / threads + LINE - 1) / LINE * LINE;
    bool shares = threads == 1 || dim >= threads * LINE;
    if (shares && size * width * int64_t(sizeof(double)) <= CACHED)
        add_by_channel(indices, count, size, dim, width, threads, add, sums);
    else
        add_by_code(indices, count, size, dim, threads, add, sums);
}

template <class T>
void code_sums(const T* x, const int64_t* indices, int64_t count, int64_t size, int64_t dim, int64_t threads, T* counts,
               T* sums) {
    std::vector<int64_t> numbers = count_by_code(indices, count, size);
    for (int64_t k = 0; k < size; ++k) counts[k] = T(numbers[k]);
    auto add = [&](int64_t n, int64_t begin, int64_t end, double* total) {
        for (int64_t d = begin; d < end; ++d) total[d - begin] += x[n * dim + d];
    };
    add_up(indices, count, size, dim, threads, add, sums);
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
    auto add = [&](int64_t n, int64_t begin, int64_t end, double* total) {
        double push = 2 * weight * loss_gradient[n];
        for (int64_t d = begin; d < end; ++d) total[d - begin] += push * (double(codes[n * dim + d]) - x[n * dim + d]);
        if (codes_gradient)
            for (int64_t d = begin; d < end; ++d) total[d - begin] += codes_gradient[n * dim + d];
    };
    add_up(indices, count, size, dim, threads, add, result);
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
