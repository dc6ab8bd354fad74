// Rows of logits to rows of probabilities, and back: equations (1) to (6) of kernels/soft/README.md. The matrix products
// around them run in PyTorch.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/compiled/functions.h"
#include "common/compiled/parallel.h"

namespace {

constexpr uint32_t MULTIPLIERS[] = QUANTIZERS_PHILOX_MULTIPLIERS, KEY_STEPS[] = QUANTIZERS_PHILOX_KEY_STEPS;
constexpr int UNIFORM_BITS = QUANTIZERS_UNIFORM_BITS;
constexpr int LANES = 16;  // separate sums and maxima, so that loops become vector instructions

double exponential_of(double x) { return std::exp(x); }
float exponential_of(float x) { return exponential(x); }
double logarithm_of(double x) { return std::log(x); }
float logarithm_of(float x) { return logarithm(x); }

template <class Body>
inline __attribute__((always_inline)) void for_lanes(int64_t count, Body body) {
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES)
        for (int lane = 0; lane < LANES; ++lane) body(k + lane, lane);
    for (int lane = 0; k + lane < count; ++lane) body(k + lane, lane);
}

template <class T>
struct Lanes {
    T of[LANES];
    explicit Lanes(T value) { std::fill_n(of, LANES, value); }
    T sum() const {
        T result = 0;
        for (T value : of) result += value;
        return result;
    }
    T largest() const {
        T result = of[0];
        for (T value : of) result = value > result ? value : result;
        return result;
    }
};

// Words of Philox 4x32 (Salmon et al. 2011) at counters (quad, row, 0, 0) for quads [0, quads) → words [4 · quads].
void philox(uint64_t seed, uint32_t row, int64_t quads, uint32_t* words) {
    for (int64_t quad = 0; quad < quads; ++quad) {
        uint32_t c0 = uint32_t(quad), c1 = row, c2 = 0, c3 = 0, k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
        for (int round = 0; round < QUANTIZERS_PHILOX_ROUNDS; ++round) {
            uint64_t first = uint64_t(MULTIPLIERS[0]) * c0, second = uint64_t(MULTIPLIERS[1]) * c2;
            c0 = uint32_t(second >> 32) ^ c1 ^ k0;
            c1 = uint32_t(second);
            c2 = uint32_t(first >> 32) ^ c3 ^ k1;
            c3 = uint32_t(first);
            k0 += KEY_STEPS[0];
            k1 += KEY_STEPS[1];
        }
        words[4 * quad] = c0, words[4 * quad + 1] = c1, words[4 * quad + 2] = c2, words[4 * quad + 3] = c3;
    }
}

template <class T>
struct Scratch {
    std::vector<T> noisy;
    std::vector<uint32_t> words;
    explicit Scratch(int64_t size) : noisy(size), words((size + 3) / 4 * 4) {}

    // (logits + Gumbel noise) / temperature
    void perturb(const T* logits, int64_t size, const int64_t* seed, int64_t row, T inverse) {
        if (!seed) {
            for (int64_t k = 0; k < size; ++k) noisy[k] = logits[k] * inverse;
            return;
        }
        philox(uint64_t(*seed), uint32_t(row), (size + 3) / 4, words.data());
        for (int64_t k = 0; k < size; ++k) {
            T uniform = (T(int32_t(words[k] >> (QUANTIZERS_WORD_BITS - UNIFORM_BITS))) + T(0.5)) / T(1 << UNIFORM_BITS);
            noisy[k] = (logits[k] - logarithm_of(-logarithm_of(uniform))) * inverse;
        }
    }
};

template <class T>
T largest(const T* values, int64_t size) {
    Lanes<T> best(values[0]);
    for_lanes(size, [&](int64_t k, int lane) { best.of[lane] = values[k] > best.of[lane] ? values[k] : best.of[lane]; });
    return best.largest();
}

// Logits of a row → probabilities of the noisy logits, in place; returns the sampled index.
template <class T>
int64_t forward_row(T* logits, int64_t size, const Scratch<T>& scratch, T* divergence, T* log_sums) {
    const T *noisy = scratch.noisy.data(), most = largest(logits, size), most_noisy = largest(noisy, size);
    int64_t index = 0;
    while (!(noisy[index] == most_noisy) && index < size - 1) ++index;
    Lanes<T> total(0), weighted(0), total_noisy(0);
    for_lanes(size, [&](int64_t k, int lane) {
        T shifted = logits[k] - most, weight = exponential_of(shifted), weight_noisy = exponential_of(noisy[k] - most_noisy);
        total.of[lane] += weight;
        weighted.of[lane] += weight * shifted;
        total_noisy.of[lane] += weight_noisy;
        logits[k] = weight_noisy;
    });
    T sum = total.sum(), sum_noisy = total_noisy.sum();
    *divergence = weighted.sum() / sum - std::log(sum) + std::log(T(size));
    log_sums[0] = most + std::log(sum);
    log_sums[1] = most_noisy + std::log(sum_noisy);
    for (int64_t k = 0; k < size; ++k) logits[k] /= sum_noisy;
    return index;
}

template <class T>
void forward(T* logits, int64_t rows, int64_t size, int64_t first_row, const T* temperature, const int64_t* seed,
             int64_t threads, int64_t* indices, T* divergence, T* log_sums) {
    in_chunks(rows, 1, threads, [&] {
        return [&, scratch = Scratch<T>(size)](int64_t row, int64_t) mutable {
            scratch.perturb(logits + row * size, size, seed, first_row + row, 1 / *temperature);
            indices[row] = forward_row(logits + row * size, size, scratch, divergence + row, log_sums + 2 * row);
        };
    });
}

// Logits → their gradient, and value_scores g·v_k → probabilities y, both in place: equation (4).
template <class T>
void backward(T* logits, T* value_scores, int64_t rows, int64_t size, int64_t first_row, const T* temperature,
              const int64_t* seed, const T* value_products, const T* divergence_gradient, const T* divergence,
              const T* log_sums, int64_t threads) {
    in_chunks(rows, 1, threads, [&] {
        return [&, scratch = Scratch<T>(size)](int64_t row, int64_t) mutable {
            T *own = logits + row * size, *scores = value_scores + row * size, inverse = 1 / *temperature;
            scratch.perturb(own, size, seed, first_row + row, inverse);
            T product = value_products[row], slope = divergence_gradient[row], log_sum = log_sums[2 * row],
              log_sum_noisy = log_sums[2 * row + 1], entropy = divergence[row] - std::log(T(size));
            const T* noisy = scratch.noisy.data();
            for (int64_t k = 0; k < size; ++k) {
                T log_p = own[k] - log_sum, y = exponential_of(noisy[k] - log_sum_noisy);
                own[k] = y * (scores[k] - product) * inverse + slope * exponential_of(log_p) * (log_p - entropy);
                scores[k] = y;
            }
        };
    });
}

}  // namespace

extern "C" {

// logits [rows, size] of the rows from first_row on → probabilities, in place; indices [rows], divergence [rows],
// log_sums [rows, 2]. A null seed means no noise.
void quantizers_soft_forward(float* logits, int64_t rows, int64_t size, int64_t first_row, const float* temperature,
                             const int64_t* seed, int64_t threads, int64_t* indices, float* divergence,
                             float* log_sums) {
    forward(logits, rows, size, first_row, temperature, seed, threads, indices, divergence, log_sums);
}

void quantizers_soft_forward_double(double* logits, int64_t rows, int64_t size, int64_t first_row,
                                    const double* temperature, const int64_t* seed, int64_t threads, int64_t* indices,
                                    double* divergence, double* log_sums) {
    forward(logits, rows, size, first_row, temperature, seed, threads, indices, divergence, log_sums);
}

// logits [rows, size] → their gradient, value_scores [rows, size] → probabilities, in place. value_products [rows] is
// the dot product of a row's value and its gradient.
void quantizers_soft_backward(float* logits, float* value_scores, int64_t rows, int64_t size, int64_t first_row,
                              const float* temperature, const int64_t* seed, const float* value_products,
                              const float* divergence_gradient, const float* divergence, const float* log_sums,
                              int64_t threads) {
    backward(logits, value_scores, rows, size, first_row, temperature, seed, value_products, divergence_gradient,
             divergence, log_sums, threads);
}

void quantizers_soft_backward_double(double* logits, double* value_scores, int64_t rows, int64_t size, int64_t first_row,
                                     const double* temperature, const int64_t* seed, const double* value_products,
                                     const double* divergence_gradient, const double* divergence,
                                     const double* log_sums, int64_t threads) {
    backward(logits, value_scores, rows, size, first_row, temperature, seed, value_products, divergence_gradient,
             divergence, log_sums, threads);
}
}
