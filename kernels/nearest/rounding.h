// The rounding errors of scores and distances: equations (3), (5) and (6) of kernels/nearest/README.md.
#pragma once
#include <cstdint>

namespace {

// (D + 8) u in float64.
constexpr double relative_error(int64_t dim) {
    return double(dim + QUANTIZERS_EXTRA_ROUNDINGS) * QUANTIZERS_ROUNDOFF_FLOAT64;
}

// (D + 8) u in float32.
constexpr double relative_error_float32(int64_t dim) {
    return double(dim + QUANTIZERS_EXTRA_ROUNDINGS) * QUANTIZERS_ROUNDOFF_FLOAT32;
}

// E₃₂ of (6). `scale` is a R + ½R², `length` is a and `radius` is R.
constexpr double score_error_float32(int64_t dim, double scale, double length, double radius) {
    double absolute = QUANTIZERS_SMALLEST_FLOAT32 * (2 + length + radius);
    return double(dim + QUANTIZERS_EXTRA_ROUNDINGS) * (QUANTIZERS_ROUNDOFF_FLOAT32 * scale + absolute);
}

}  // namespace
