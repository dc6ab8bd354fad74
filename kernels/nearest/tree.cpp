// A k-d tree over the codes: which codes share a leaf, and the boxes of the leaves.
#include "nearest/tree.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

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
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> centred(dim);
        const float* row = centred.data();
#pragma omp for
        for (int64_t k = 0; k < size; ++k) {
            bool is_finite;
            double square = centre_row(codes + k * dim, centre, dim, centred.data(), &is_finite);
            if (!is_finite || !(square < LARGEST)) std::fill_n(centred.data(), dim, 0.0f), square = 0;
            coordinates_of(1, &row, axes, &square, dim, &coordinates[k * AXES]);
        }
    }
    for (int64_t k = 0; k < size; ++k) order[k] = int32_t(k);
    std::vector<Branch> branches = {{0, 0, (size + LEAF - 1) / LEAF}}, halves;
    while (!branches.empty()) {
        halves.assign(2 * branches.size(), {0, 0, 0});
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (size_t i = 0; i < branches.size(); ++i) {
            Branch branch = branches[i];
            if (branch.count < 2) continue;
            divide(branch, coordinates.data(), size, dims, order, axis, cut);
            int64_t left = left_leaves(branch.count);
            halves[2 * i] = {branch.node + 1, branch.first, left};
            halves[2 * i + 1] = {branch.node + left, branch.first + left, branch.count - left};
        }
        branches.clear();
        for (const Branch& half : halves)
            if (half.count > 1) branches.push_back(half);
    }
}

// The boxes of all leaves of a packed codebook and of their groups; the largest error of a code's coordinates to slack.
void quantizers_boxes(const float* packed, const float* bias, int64_t size, int64_t dim, const float* axes,
                      int64_t threads, float* boxes, float* outer, double* slack) {
    int64_t leaves = (size + LEAF - 1) / LEAF, groups = (leaves + WIDTH - 1) / WIDTH;
    int dims = coordinate_count(dim);
    double largest = 0;
    for (int64_t i = 0; i < quantizers_boxes_size(leaves, dim); ++i) boxes[i] = i / WIDTH % 2 ? -INFINITE : INFINITE;
    for (int64_t i = 0; i < quantizers_boxes_size(groups, dim); ++i) outer[i] = i / WIDTH % 2 ? -INFINITE : INFINITE;
#pragma omp parallel for num_threads(threads) reduction(max : largest)
    for (int64_t group = 0; group < groups; ++group)
        for (int64_t leaf = group * WIDTH; leaf < std::min((group + 1) * WIDTH, leaves); ++leaf)
            for (int v = 0; v < LEAF_VECTORS; ++v) {
                const float* codes = packed + leaf * LEAF * dim + v * WIDTH;
                Vector values[MOST_COORDINATES] = {}, squares = {};
                for (int64_t d = 0; d < dim; ++d) {
                    Vector code = load(codes + d * LEAF);
                    for (int p = 0; p < axis_count(dim); ++p) values[p] -= axes[d * AXES + p] * code;
                    squares += code * code;
                }
                for (int lane = 0; lane < WIDTH; ++lane) {
                    if (bias[leaf * LEAF + v * WIDTH + lane] == INFINITE) continue;
                    double rest = squares[lane];
                    for (int p = 0; p < axis_count(dim); ++p) rest -= double(values[p][lane]) * values[p][lane];
                    if (has_rest(dim)) values[LEADING][lane] = float(std::sqrt(std::max(rest, 0.0)));
                    largest = std::max(largest, coordinate_error(dim, std::sqrt(squares[lane]), values[dims - 1][lane]));
                    float* box = boxes + group * dims * 2 * WIDTH + leaf % WIDTH;
                    float* around = outer + group / WIDTH * dims * 2 * WIDTH + group % WIDTH;
                    for (int p = 0; p < dims; ++p, box += 2 * WIDTH, around += 2 * WIDTH) {
                        float value = values[p][lane];
                        box[0] = std::min(box[0], value), box[WIDTH] = std::max(box[WIDTH], value);
                        around[0] = std::min(around[0], value), around[WIDTH] = std::max(around[WIDTH], value);
                    }
                }
            }
    *slack = largest;
}
}
