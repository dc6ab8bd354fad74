// A packed codebook, and rows in its frame: centred, with the bound on the error of their scores.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "nearest/rounding.h"
#include "nearest/tile.h"

namespace {

constexpr float INFINITE = std::numeric_limits<float>::infinity(), LARGEST = std::numeric_limits<float>::max();

struct Codebook {
    const float *codes, *packed, *bias, *centre;  // as in quantizers_pack
    const int32_t* order;                         // [size] the code at each place of the packed arrays; null: in order
    int64_t size, dim;
    double radius, largest_bias;  // of the packed codes: norm and |bias|

    int64_t leaves() const { return (size + LEAF - 1) / LEAF; }
    int64_t tiles() const { return (size + CODES - 1) / CODES; }
    const float* leaf(int64_t leaf) const { return packed + leaf * LEAF * dim; }
    const float* tile(int64_t tile) const { return leaf(tile / LEAF_TILES) + tile % LEAF_TILES * CODES; }
    int64_t code(int64_t place) const { return order ? order[place] : place; }
};

struct Row {
    bool finite, scored;  // scored: float32 can score it
    float margin;         // 2E of (7)
    double length, error;  // a and E₃₂ of (6)
};

// x − centre to `centred`; its squared norm.
inline double centre_row(const float* x, const float* centre, int64_t dim, float* centred, bool* is_finite) {
    Vector squares = {}, zeros = {};
    float square = 0, zero = 0;
    int64_t d = 0;
    for (; d + WIDTH <= dim; d += WIDTH) {
        Vector value = load(x + d) - load(centre + d);
        zeros += load(x + d) * 0.0f;
        squares += value * value;
        store(centred + d, value);
    }
    for (; d < dim; ++d) {
        float value = x[d] - centre[d];
        zero += x[d] * 0.0f;
        square += value * value;
        centred[d] = value;
    }
    *is_finite = zero + sum(zeros) == 0.0f;
    float total = square + sum(squares);
    if (total <= LARGEST || !*is_finite) return total;
    double wide = 0;  // for a row longer than 2·10¹⁹, whose square overflows float32
    for (d = 0; d < dim; ++d) wide += double(centred[d]) * centred[d];
    return wide;
}

// Writes the centred row [dim]; zeros for one that is not scored.
inline Row enter_row(const Codebook& book, const float* x, float* centred) {
    Row row;
    row.length = std::sqrt(centre_row(x, book.centre, book.dim, centred, &row.finite));
    double scale = row.length * book.radius + book.largest_bias;
    row.error = score_error_float32(book.dim, scale, row.length, book.radius);
    row.scored = row.finite && scale <= QUANTIZERS_LARGEST_SCORE;
    row.margin = row.scored ? float(QUANTIZERS_CANDIDATE_MARGIN * row.error) : 0.0f;
    if (!row.scored) std::fill_n(centred, book.dim, 0.0f);
    return row;
}

}  // namespace
