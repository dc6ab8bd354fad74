// A k-d tree over the codes, in a few coordinates that never exaggerate a distance: kernels/nearest/README.md, (13) to (16).
#pragma once
#include <algorithm>
#include <cmath>

#include "nearest/leaf.h"
#include "nearest/rounding.h"

namespace {

constexpr int MOST_COORDINATES = 8;
constexpr int AXES = WIDTH > MOST_COORDINATES ? WIDTH : MOST_COORDINATES;  // columns of the matrix of axes
constexpr int AXIS_VECTORS = AXES / WIDTH;

// Up to eight channels, all are kept. Of more, the leading axes and the length of the rest are.
constexpr int LEADING = 4;
constexpr bool has_rest(int64_t dim) { return dim > MOST_COORDINATES; }
constexpr int axis_count(int64_t dim) { return has_rest(dim) ? LEADING : int(dim); }
constexpr int coordinate_count(int64_t dim) { return axis_count(dim) + has_rest(dim); }

// Leaves of the left half of n > 1: whole groups of WIDTH if there are any, so that a group is a subtree.
constexpr int64_t left_leaves(int64_t n) { return n > WIDTH ? (n + WIDTH) / (2 * WIDTH) * WIDTH : n / 2; }
static_assert(left_leaves(WIDTH + 1) == WIDTH && left_leaves(2 * WIDTH) == WIDTH, "the right half is never empty");

struct Tree {
    int64_t leaves, dim;
    const float* axes;        // [dim][AXES], negative, for scores of the form −Σ
    const int32_t* axis;      // [leaves − 1] of each inner node in preorder: the coordinate that divides it,
    const float* cut;         //              and where
    const float* boxes;       // [groups][coordinates][2][WIDTH]: least and largest of each leaf, WIDTH leaves a group
    const float* outer;       // the same of each group
    double slack;             // largest error of a code's coordinates, as a distance

    int64_t groups() const { return (leaves + WIDTH - 1) / WIDTH; }
    int64_t outer_groups() const { return (groups() + WIDTH - 1) / WIDTH; }
    int64_t box_size() const { return coordinate_count(dim) * 2 * WIDTH; }

    int64_t leaf_of(const float* coordinates) const {
        int64_t node = 0, first = 0, n = leaves;
        while (n > 1) {
            int64_t half = left_leaves(n);
            bool right = coordinates[axis[node]] >= cut[node];
            node += right ? half : 1;
            first += right ? half : 0;
            n = right ? n - half : half;
        }
        return first;
    }
};

// The error of the coordinates of a vector of this length, as a distance: (14). `rest` is the computed length of the rest.
inline double coordinate_error(int64_t dim, double length, double rest) {
    double root = std::sqrt(double(axis_count(dim))), error = root * relative_error_float32(dim) * length;
    if (!has_rest(dim)) return error;
    double square = 2 * (1 + root) * relative_error_float32(dim) * length * length;
    return error + (square > 0 ? square / std::max(rest, std::sqrt(square)) : 0.0);
}

// Coordinates of 1 to BATCH centred rows, each to AXES floats; `squares` are the rows' squared lengths.
inline void coordinates_of(int number, const float* const* rows, const float* axes, const double* squares, int64_t dim,
                    float* coordinates) {
    static constexpr float NO_BIAS[AXES] = {};
    Vector values[BATCH * AXIS_VECTORS];
    score_some_rows<AXIS_VECTORS>(number, rows, axes, NO_BIAS, dim, values);
    for (int r = 0; r < number; ++r) {
        float* to = coordinates + r * AXES;
        for (int v = 0; v < AXIS_VECTORS; ++v) store(to + v * WIDTH, values[r * AXIS_VECTORS + v]);
        if (!has_rest(dim)) continue;
        double rest = squares[r];
        for (int p = 0; p < LEADING; ++p) rest -= double(to[p]) * to[p];
        to[LEADING] = float(std::sqrt(std::max(rest, 0.0)));
    }
}

}  // namespace
