// float64 vectors, whose codes are all compared in float64: there is no wider type to certify a faster search.
#pragma once
#include <cstdint>

#include "common/compiled/vectors.h"

namespace {

inline Doubles load(const double* from) { return *reinterpret_cast<const Doubles*>(from); }

// Σ (x − code)², or −x·code with PRODUCT.
template <bool PRODUCT>
double compare(const double* x, const double* code, int64_t dim) {
    constexpr int HALF = WIDTH / 2;
    Doubles total = {};
    int64_t d = 0;
    for (; d + HALF <= dim; d += HALF) {
        Doubles value = load(x + d), other = load(code + d);
        total += PRODUCT ? -value * other : (value - other) * (value - other);
    }
    double result = sum(total);
    for (; d < dim; ++d) result += PRODUCT ? -x[d] * code[d] : (x[d] - code[d]) * (x[d] - code[d]);
    return result;
}

inline bool is_finite(const double* x, int64_t dim) {
    double zero = 0;
    for (int64_t d = 0; d < dim; ++d) zero += x[d] * 0.0;
    return zero == 0;
}

}  // namespace
