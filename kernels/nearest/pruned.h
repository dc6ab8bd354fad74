// The nearest code by comparison with the leaves that may contain it: equations (13) to (17) of kernels/nearest/README.md.
//
// Rows are visited in the order of the leaves that they fall in, a tile at a time. A tile's own leaves give each row a
// first code. The box of the tile then rules out most groups of leaves and most leaves, lanes being leaves; the box of a
// leaf rules out most rows, lanes being rows; and the rows that remain are scored, lanes being codes.
#pragma once
#include "nearest/decide.h"
#include "nearest/tree.h"

namespace {

constexpr int TILE = 16;  // rows
constexpr int SORTED = 16;  // leaves of those in reach of a tile that are visited in the order of their distance
constexpr int TILE_VECTORS = TILE / WIDTH;

struct Work {
    int64_t scored = 0, row_tests = 0, leaf_tests = 0;  // pairs of row and leaf, of tile and leaf, of tile and group
};

struct Scored {
    int64_t place;  // in the packed codebook
    float score;
};

struct Near {
    float bound;  // the squared distance of the leaf's box from the tile's
    int64_t leaf;
};

class PrunedSearch {
   public:
    PrunedSearch(const Codebook& book, const Tree& tree)
        : book(book), tree(tree), decision(book), dims(coordinate_count(book.dim)), rows(TILE * book.dim), lists(TILE) {}

    int64_t row_leaves = 0, tile_leaves = 0;  // pairs of row and leaf that were scored, of tile and leaf that were compared

    // Rows places[0 … count) of x, and the leaf that each falls in.
    void run(const float* x, const int32_t* places, const int32_t* leaves, int count, const Found& found) {
        enter(x, places, count);
        score_own_leaves(places, leaves, count);
        visit_groups();
        for (int row = 0; row < count; ++row) {
            codes.clear();
            for (const Scored& candidate : lists[row])
                if (candidate.score <= limit[row]) codes.push_back(book.code(candidate.place));
            decision.write(x + places[row] * book.dim, state[row].finite, codes, found, places[row]);
        }
    }

   private:
    const Codebook& book;
    const Tree& tree;
    Decision<ByDistance> decision;
    const int dims;
    std::vector<float> rows;
    std::vector<std::vector<Scored>> lists;
    std::vector<int64_t> codes;
    Row state[TILE];
    int64_t own[TILE];
    float coordinates[MOST_COORDINATES][TILE], low[MOST_COORDINATES], high[MOST_COORDINATES];
    float least[TILE], limit[TILE];  // the smallest score, and the largest that (7) allows
    float base[TILE], slack[TILE], reach[TILE], furthest;  // reach: the square of (16)
    std::vector<Near> near;
    unsigned active;                                          // a bit for each row that is scored

    void enter(const float* x, const int32_t* places, int count) {
        active = 0;
        double squares[TILE];
        const float* pointers[TILE];
        for (int row = 0; row < TILE; ++row) {
            pointers[row] = &rows[row * book.dim];
            lists[row].clear();
            base[row] = -INFINITE, least[row] = slack[row] = 0.0f;
            if (row >= count) continue;
            state[row] = enter_row(book, x + int64_t(places[row]) * book.dim, &rows[row * book.dim]);
            active |= unsigned(state[row].scored) << row;
            squares[row] = state[row].scored ? state[row].length * state[row].length : 0.0;
        }
        std::fill_n(low, dims, INFINITE);
        std::fill_n(high, dims, -INFINITE);
        for (int first = 0; first < count; first += BATCH) {
            float values[BATCH * AXES];
            int number = std::min(BATCH, count - first);
            coordinates_of(number, pointers + first, tree.axes, squares + first, book.dim, values);
            for (int r = 0; r < number; ++r) enter_coordinates(first + r, values + r * AXES);
        }
    }

    void enter_coordinates(int row, const float* values) {
        for (int p = 0; p < dims; ++p) coordinates[p][row] = values[p];
        if (!(active >> row & 1)) return;
        for (int p = 0; p < dims; ++p) {
            low[p] = std::min(low[p], values[p]);
            high[p] = std::max(high[p], values[p]);
        }
        double length = state[row].length, u = double(book.dim + QUANTIZERS_EXTRA_ROUNDINGS) * QUANTIZERS_ROUNDOFF_FLOAT32;
        least[row] = INFINITE, limit[row] = LARGEST;  // an absent code has an infinite score
        base[row] = float(length * length * (1 + 4 * u) + 8 * state[row].error);
        slack[row] = float((coordinate_error(book.dim, length, values[dims - 1]) + tree.slack) * (1 + 1e-6));
    }

    // The reach of each row after its smallest score has changed, squared: equation (16). Zero for rows that are not scored.
    void update_reach() {
        Vector most = {}, zero = {};
        for (int row = 0; row < TILE; row += WIDTH) {
            Vector square = maximum(load(base + row) + 2 * load(least + row), zero);
            Vector distance = square_root(square) * (1 + 0x1p-20f) + load(slack + row);
            Vector result = distance * distance * (1 + 0x1p-20f);
            store(reach + row, result);
            most = maximum(most, result);
        }
        furthest = -least_of(-most);
    }

    void score_own_leaves(const int32_t* places, const int32_t* leaves, int count) {
        for (int row = 0; row < TILE; ++row) own[row] = row < count ? leaves[places[row]] : -1;
        for (int first = 0, last; first < count; first = last) {
            unsigned mask = 0;
            for (last = first; last < count && own[last] == own[first]; ++last) mask |= 1u << last;
            score_leaf(own[first], mask & active);
        }
        update_reach();
    }

    void visit_groups() {
        if (!active) return;
        near.clear();
        float bounds[WIDTH];
        for (int64_t block = 0; block < tree.outer_groups(); ++block) {
            unsigned groups = boxes_within(tree.outer + block * tree.box_size(), tree.groups() - block * WIDTH, bounds);
            for (; groups; groups &= groups - 1) {
                int64_t group = block * WIDTH + __builtin_ctz(groups);
                unsigned leaves = boxes_within(tree.boxes + group * tree.box_size(), tree.leaves - group * WIDTH, bounds);
                for (; leaves; leaves &= leaves - 1) {
                    int lane = __builtin_ctz(leaves);
                    near.push_back({bounds[lane], group * WIDTH + lane});
                }
            }
        }
        // Near leaves first: they shorten the reach for the others.
        auto nearer = [](const Near& a, const Near& b) { return a.bound < b.bound; };
        std::partial_sort(near.begin(), near.begin() + std::min<size_t>(near.size(), SORTED), near.end(), nearer);
        for (const Near& leaf : near)
            if (!(leaf.bound > furthest)) visit_leaf(leaf.leaf / WIDTH, leaf.leaf % WIDTH);
    }

    // A bit for each of WIDTH boxes, of which `count` exist, that is not certainly farther from all rows than `most`.
    unsigned boxes_within(const float* boxes, int64_t count, float* bounds) {
        Vector square = {}, zero = {};
        for (int p = 0; p < dims; ++p, boxes += 2 * WIDTH) {
            Vector gap = maximum(load(boxes) - high[p], low[p] - load(boxes + WIDTH));
            gap = maximum(gap, zero);
            square += gap * gap;
        }
        store(bounds, square);
        unsigned near = ~above(square, broadcast(furthest));
        return near & ((count >= WIDTH ? 0u : 1u << count) - 1u) & ((1u << (WIDTH - 1)) * 2u - 1u);
    }

    void visit_leaf(int64_t group, int lane) {
        ++tile_leaves;
        int64_t leaf = group * WIDTH + lane;
        const float* box = tree.boxes + group * tree.box_size() + lane;
        Vector square[TILE_VECTORS] = {}, zero = {};
        for (int p = 0; p < dims; ++p, box += 2 * WIDTH)
            for (int v = 0; v < TILE_VECTORS; ++v) {
                Vector value = load(&coordinates[p][v * WIDTH]);
                Vector gap = maximum(maximum(box[0] - value, value - box[WIDTH]), zero);
                square[v] += gap * gap;
            }
        unsigned near = 0;
        for (int v = 0; v < TILE_VECTORS; ++v)
            near |= (~above(square[v], load(reach + v * WIDTH)) & ((1u << (WIDTH - 1)) * 2u - 1u)) << v * WIDTH;
        near &= active;
        for (unsigned bits = near; bits; bits &= bits - 1)
            if (own[__builtin_ctz(bits)] == leaf) near &= ~(bits & -bits);
        if (near && score_leaf(leaf, near)) update_reach();
    }

    // Scores the rows of a mask, and lists the codes that may be their nearest.
    // Whether a smallest score has changed.
    bool score_leaf(int64_t leaf, unsigned mask) {
        bool changed = false;
        const float *packed = book.leaf(leaf), *bias = book.bias + leaf * LEAF;
        while (mask) {
            int number = 0, chosen[BATCH];
            const float* pointers[BATCH];
            for (; mask && number < BATCH; mask &= mask - 1, ++number) {
                chosen[number] = __builtin_ctz(mask);
                pointers[number] = &rows[chosen[number] * book.dim];
            }
            Vector scores[BATCH * 3];
            score_some_rows<3>(number, pointers, packed, bias, book.dim, scores);
            for (int r = 0; r < number; ++r) changed |= list(chosen[r], leaf, scores + 3 * r);
            row_leaves += number;
        }
        return changed;
    }

    bool list(int row, int64_t leaf, const Vector* scores) {
        Vector smallest = minimum(minimum(scores[0], scores[1]), scores[2]);
        if (!at_most(smallest, broadcast(limit[row]))) return false;
        float before = least[row];
        least[row] = std::min(before, least_of(smallest));
        limit[row] = std::min(least[row] + state[row].margin, LARGEST);
        for (int v = 0; v < 3; ++v)
            for (unsigned near = at_most(scores[v], broadcast(limit[row])); near; near &= near - 1) {
                int lane = __builtin_ctz(near);
                lists[row].push_back({leaf * LEAF + v * WIDTH + lane, scores[v][lane]});
            }
        return least[row] < before;
    }
};

}  // namespace
