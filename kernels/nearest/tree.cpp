// A k-d tree over the codes: which codes share a leaf, and the boxes of the leaves.
#include "nearest/tree.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/compiled/parallel.h"
#include "nearest/codebook.h"

namespace {

// Leaves [first, first + count) of the tree, below the inner node `node`.
struct Branch {
    int64_t node, first, count;
};

// The coordinate with the largest variance over the codes order[begin … end).
int widest(const float* coordinates, const int32_t* order, int64_t begin, int64_t end, int dims) {
    double best = -1;
    int widest = 0;
    double sums[MOST_COORDINATES] = {}, squares[MOST_COORDINATES] = {};
    for (int64_t i = begin; i < end; ++i)
        for (int p = 0; p < dims; ++p) {
            double value = coordinates[order[i] * int64_t(AXES) + p];
            sums[p] += value;
            squares[p] += value * value;
        }
    for (int p = 0; p < dims; ++p) {
        double variance = squares[p] - sums[p] * sums[p] / double(end - begin);
        if (variance > best) best = variance, widest = p;
    }
    return widest;
}

// Divides the codes of a branch between its halves, and writes the node.
void divide(const Branch& branch, const float* coordinates, int64_t size, int dims, int32_t* order, int32_t* axis,
            float* cut) {
    int64_t begin = branch.first * LEAF, end = std::min((branch.first + branch.count) * LEAF, size);
    int64_t middle = (branch.first + left_leaves(branch.count)) * LEAF;
    int p = widest(coordinates, order, begin, end, dims);
    std::vector<std::pair<float, int32_t>> keys;
    keys.reserve(end - begin);
    for (int64_t i = begin; i < end; ++i) keys.emplace_back(coordinates[order[i] * int64_t(AXES) + p], order[i]);
    std::nth_element(keys.begin(), keys.begin() + (middle - begin), keys.end());
    for (int64_t i = begin; i < end; ++i) order[i] = keys[i - begin].second;
    axis[branch.node] = p;
    cut[branch.node] = keys[middle - begin].first;
}

// Widens a box around the coordinates of a leaf's codes, and the box of its group. The largest error of a coordinate.
double enclose_leaf(const float* packed, const float* bias, int64_t dim, const float* axes, float* box, float* around) {
    double largest = 0;
    int dims = coordinate_count(dim), along = axis_count(dim);
    for (int v = 0; v < LEAF_VECTORS; ++v) {
        Vector values[MOST_COORDINATES] = {}, squares = {};
        for (int64_t d = 0; d < dim; ++d) {
            Vector code = load(packed + d * LEAF + v * WIDTH);
            for (int p = 0; p < along; ++p) values[p] -= axes[d * AXES + p] * code;
            squares += code * code;
        }
        for (int lane = 0; lane < WIDTH; ++lane) {
            if (bias[v * WIDTH + lane] == INFINITE) continue;
            double rest = squares[lane];
            for (int p = 0; p < along; ++p) rest -= double(values[p][lane]) * values[p][lane];
            if (has_rest(dim)) values[LEADING][lane] = float(std::sqrt(std::max(rest, 0.0)));
            largest = std::max(largest, coordinate_error(dim, std::sqrt(double(squares[lane])), values[dims - 1][lane]));
            for (int p = 0; p < dims; ++p)
                for (float* each : {box + p * 2 * WIDTH, around + p * 2 * WIDTH}) {
                    each[0] = std::min(each[0], values[p][lane]);
                    each[WIDTH] = std::max(each[WIDTH], values[p][lane]);
                }
        }
    }
    return largest;
}

}  // namespace

extern "C" {

int64_t quantizers_axes() { return AXES; }
int64_t quantizers_axis_count(int64_t dim) { return axis_count(dim); }
// Floats of the boxes of `count` leaves or groups.
int64_t quantizers_boxes_size(int64_t count, int64_t dim) {
    return (count + WIDTH - 1) / WIDTH * WIDTH * 2 * coordinate_count(dim);
}
int64_t quantizers_groups(int64_t leaves) { return (leaves + WIDTH - 1) / WIDTH; }

// codes [size, dim] → order [size], the codes leaf by leaf, and axis and cut [leaves − 1]; see Tree. Codes that are not
// finite count as the centre.
void quantizers_tree(const float* codes, int64_t size, int64_t dim, const float* centre, const float* axes,
                     int64_t threads, int32_t* order, int32_t* axis, float* cut) {
    int dims = coordinate_count(dim);
    std::vector<float> coordinates(size * AXES);
    in_chunks(size, 64, threads, [&] {
        return [&, centred = std::vector<float>(dim)](int64_t begin, int64_t end) mutable {
            const float* row = centred.data();
            for (int64_t k = begin; k < end; ++k) {
                bool is_finite;
                double square = centre_row(codes + k * dim, centre, dim, centred.data(), &is_finite);
                if (!is_finite || !(square < LARGEST)) std::fill_n(centred.data(), dim, 0.0f), square = 0;
                coordinates_of(1, &row, axes, &square, dim, &coordinates[k * AXES]);
            }
        };
    });
    for (int64_t k = 0; k < size; ++k) order[k] = int32_t(k);
    std::vector<Branch> branches = {{0, 0, (size + LEAF - 1) / LEAF}}, halves;
    while (!branches.empty()) {
        halves.assign(2 * branches.size(), {0, 0, 0});
        for_each(int64_t(branches.size()), 1, threads, [&](int64_t i) {
            Branch branch = branches[i];
            if (branch.count < 2) return;
            divide(branch, coordinates.data(), size, dims, order, axis, cut);
            int64_t left = left_leaves(branch.count);
            halves[2 * i] = {branch.node + 1, branch.first, left};
            halves[2 * i + 1] = {branch.node + left, branch.first + left, branch.count - left};
        });
        branches.clear();
        for (const Branch& half : halves)
            if (half.count > 1) branches.push_back(half);
    }
}

// The boxes of all leaves of a packed codebook and of their groups; the largest error of a code's coordinates to slack.
void quantizers_boxes(const float* packed, const float* bias, int64_t size, int64_t dim, const float* axes,
                      int64_t threads, float* boxes, float* outer, double* slack) {
    int64_t leaves = (size + LEAF - 1) / LEAF, groups = (leaves + WIDTH - 1) / WIDTH;
    int64_t box_size = coordinate_count(dim) * 2 * WIDTH;
    for (int64_t i = 0; i < quantizers_boxes_size(leaves, dim); ++i) boxes[i] = i / WIDTH % 2 ? -INFINITE : INFINITE;
    for (int64_t i = 0; i < quantizers_boxes_size(groups, dim); ++i) outer[i] = i / WIDTH % 2 ? -INFINITE : INFINITE;
    std::vector<double> errors(groups, 0.0);
    for_each(groups, 1, threads, [&](int64_t group) {
        for (int64_t leaf = group * WIDTH; leaf < std::min((group + 1) * WIDTH, leaves); ++leaf) {
            float *box = boxes + group * box_size + leaf % WIDTH, *around = outer + group / WIDTH * box_size + group % WIDTH;
            double error = enclose_leaf(packed + leaf * LEAF * dim, bias + leaf * LEAF, dim, axes, box, around);
            errors[group] = std::max(errors[group], error);
        }
    });
    *slack = *std::max_element(errors.begin(), errors.end());
}
}
