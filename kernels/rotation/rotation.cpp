// The backward of the rotation trick, one row at a time: equations (1) to (5) of kernels/rotation/README.md.
#include <algorithm>
#include <cmath>

#include "common/compiled/parallel.h"
#include "common/compiled/vectors.h"

namespace {

constexpr int64_t CHUNK = 64;  // rows
constexpr double LARGEST_RATIO = QUANTIZERS_LARGEST_RATIO, OPPOSITE = QUANTIZERS_OPPOSITE;

template <class T>
void rotate_row(const T* gradient, const T* x, const T* q, int64_t dim, T* result) {
    double xx = 0, qq = 0;
    for (int64_t d = 0; d < dim; ++d) xx += double(x[d]) * x[d], qq += double(q[d]) * q[d];
    double x_norm = std::sqrt(xx), q_norm = std::sqrt(qq);
    if (!(x_norm > 0 && q_norm > 0)) {  // no direction to rotate: straight-through
        std::copy_n(gradient, dim, result);
        return;
    }
    double x_inverse = 1 / x_norm, q_inverse = 1 / q_norm;
    double mm = 0, mg = 0, qg = 0;  // for the middle x̂ + q̂ before normalization
    for (int64_t d = 0; d < dim; ++d) {
        double q_unit = q[d] * q_inverse, middle = x[d] * x_inverse + q_unit;
        mm += middle * middle;
        mg += middle * gradient[d];
        qg += q_unit * gradient[d];
    }
    double ratio = std::clamp(q_norm / x_norm, 1 / LARGEST_RATIO, LARGEST_RATIO);
    double along = std::sqrt(mm) < OPPOSITE ? 0.0 : 2 * mg / mm;
    for (int64_t d = 0; d < dim; ++d) {
        double x_unit = x[d] * x_inverse, middle = x_unit + q[d] * q_inverse;
        result[d] = T(ratio * (gradient[d] - middle * along + 2 * x_unit * qg));
    }
}

template <class T>
void rotate(const T* gradient, const T* x, const T* q, int64_t count, int64_t dim, int64_t threads, T* result) {
    for_each(count, CHUNK, threads, [&](int64_t row) {
        rotate_row(gradient + row * dim, x + row * dim, q + row * dim, dim, result + row * dim);
    });
}

}  // namespace

extern "C" {

// gradient, x and codes q, all [count, dim] → the gradient of x [count, dim].
void quantizers_rotate_grad(const float* gradient, const float* x, const float* q, int64_t count, int64_t dim,
                            int64_t threads, float* result) {
    rotate(gradient, x, q, count, dim, threads, result);
}

void quantizers_rotate_grad_double(const double* gradient, const double* x, const double* q, int64_t count, int64_t dim,
                                   int64_t threads, double* result) {
    rotate(gradient, x, q, count, dim, threads, result);
}
}
