// The nearest code by comparison with the leaves that may contain it: equations (13) to (16) of kernels/nearest/README.md.
//
// Rows are visited in the order of the leaves that they fall in, a tile at a time. A tile's own leaves give each row a
// first code. The box of the tile then rules out most groups of leaves and most leaves, lanes being leaves; the box of a
// leaf rules out most rows, lanes being rows; and the rows that remain are scored, lanes being codes.
#pragma once
#include "nearest/boxes.h"
#include "nearest/decide.h"

namespace {

constexpr int SORTED = 8;  // leaves of those in reach of a tile that are visited in the order of their distance

struct Scored {
    int64_t place;  // in the packed codebook
    float score;
};

struct Near {
    float bound;  // the squared distance of the leaf's box from the tile's
    int64_t leaf;
};

struct Work {
    int64_t rows = 0, row_leaves = 0, tile_leaves = 0;  // pairs of row and leaf are scored, of tile and leaf compared
};

class PrunedSearch {
   public:
    PrunedSearch(const Codebook& book, const Tree& tree)
        : book(book),
          tree(tree),
          decision(book),
          dims(coordinate_count(book.dim)),
          near_boxes(choose_near_boxes(dims)),
          near_rows(choose_near_rows(dims)),
          rows(TILE * book.dim),
          lists(TILE) {}

    Work work;

    // Searches rows places[0 … count) of x, and leaves[row] is the leaf that row falls in.
    void run(const float* x, const int32_t* places, const int32_t* leaves, int count, const Found& found) {
        work.rows += count;
        enter(x, places, count);
        score_own_leaves(places, leaves, count);
        if (active) visit_leaves();
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
    const NearBoxes near_boxes;
    const NearRows near_rows;
    std::vector<float> rows;
    std::vector<std::vector<Scored>> lists;
    std::vector<Near> near;
    std::vector<int64_t> codes;
    Row state[TILE];
    Reach reach;
    int64_t own[TILE];
    float least[TILE], limit[TILE];  // the smallest score, and the largest that (7) allows
    float base[TILE], slack[TILE];   // of (16)
    unsigned active;                 // a bit for each row that is scored

    void enter(const float* x, const int32_t* places, int count) {
        active = 0;
        double squares[TILE];
        const float* pointers[TILE];
        std::fill_n(base, TILE, -INFINITE);  // so that rows that are not scored reach nothing
        std::fill_n(least, TILE, 0.0f);
        std::fill_n(slack, TILE, 0.0f);
        for (int row = 0; row < count; ++row) {
            pointers[row] = &rows[row * book.dim];
            lists[row].clear();
            state[row] = enter_row(book, x + int64_t(places[row]) * book.dim, &rows[row * book.dim]);
            active |= unsigned(state[row].scored) << row;
            squares[row] = state[row].scored ? state[row].length * state[row].length : 0.0;
        }
        std::fill_n(reach.low, dims, INFINITE);
        std::fill_n(reach.high, dims, -INFINITE);
        for (int first = 0; first < count; first += BATCH) {
            float values[BATCH * AXES];
            int number = std::min(BATCH, count - first);
            coordinates_of(number, pointers + first, tree.axes, squares + first, book.dim, values);
            for (int r = 0; r < number; ++r) enter_coordinates(first + r, values + r * AXES);
        }
    }

    void enter_coordinates(int row, const float* values) {
        for (int p = 0; p < dims; ++p) reach.coordinates[p][row] = values[p];
        if (!state[row].scored) return;
        for (int p = 0; p < dims; ++p) {
            reach.low[p] = std::min(reach.low[p], values[p]);
            reach.high[p] = std::max(reach.high[p], values[p]);
        }
        least[row] = INFINITE, limit[row] = LARGEST;  // an absent code has an infinite score
        double length = state[row].length, square = length * length * (1 + 4 * relative_error_float32(book.dim));
        base[row] = float(square + 8 * state[row].error);
        slack[row] = float((coordinate_error(book.dim, length, values[dims - 1]) + tree.slack) * (1 + 0x1p-20));
    }

    // The reach of each row after its smallest score has changed: equation (16).
    void update_reach() {
        Vector most = {}, zero = {};
        for (int row = 0; row < TILE; row += WIDTH) {
            Vector square = maximum(load(base + row) + 2 * load(least + row), zero);
            Vector distance = square_root(square) * (1 + 0x1p-20f) + load(slack + row);
            Vector result = distance * distance * (1 + 0x1p-20f);
            store(reach.squares + row, result);
            most = maximum(most, result);
        }
        reach.furthest = -least_of(-most);
    }

    void score_own_leaves(const int32_t* places, const int32_t* leaves, int count) {
        for (int row = 0; row < count; ++row) own[row] = leaves[places[row]];
        for (int first = 0, last; first < count; first = last) {
            unsigned mask = 0;
            for (last = first; last < count && own[last] == own[first]; ++last) mask |= 1u << last;
            score_leaf(own[first], mask & active);
        }
        update_reach();
    }

    void visit_leaves() {
        find_near_leaves();
        auto nearer = [](const Near& a, const Near& b) { return a.bound < b.bound; };
        std::partial_sort(near.begin(), near.begin() + std::min<size_t>(near.size(), SORTED), near.end(), nearer);
        for (const Near& leaf : near)
            if (!(leaf.bound > reach.furthest)) visit_leaf(leaf.leaf);
    }

    void find_near_leaves() {
        near.clear();
        float bounds[WIDTH];
        for (int64_t block = 0; block < tree.outer_groups(); ++block) {
            unsigned groups = near_boxes(reach, tree.outer + block * tree.box_size(), bounds);
            for (groups &= existing(tree.groups() - block * WIDTH); groups; groups &= groups - 1) {
                int64_t group = block * WIDTH + __builtin_ctz(groups);
                unsigned leaves = near_boxes(reach, tree.boxes + group * tree.box_size(), bounds);
                for (leaves &= existing(tree.leaves - group * WIDTH); leaves; leaves &= leaves - 1) {
                    int lane = __builtin_ctz(leaves);
                    near.push_back({bounds[lane], group * WIDTH + lane});
                }
            }
        }
    }

    // A bit for each of `count` boxes, WIDTH at most.
    static unsigned existing(int64_t count) { return count >= WIDTH ? ALL_LANES : (1u << count) - 1u; }

    void visit_leaf(int64_t leaf) {
        ++work.tile_leaves;
        unsigned mask = near_rows(reach, tree.boxes + leaf / WIDTH * tree.box_size() + leaf % WIDTH) & active;
        for (unsigned bits = mask; bits; bits &= bits - 1)
            if (own[__builtin_ctz(bits)] == leaf) mask &= ~(bits & -bits);
        if (mask && score_leaf(leaf, mask)) update_reach();
    }

    // Scores the rows of a mask, and lists the codes that may be their nearest. Whether a smallest score has changed.
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
            Vector scores[BATCH * LEAF_VECTORS];
            score_some_rows<LEAF_VECTORS>(number, pointers, packed, bias, book.dim, scores);
            for (int r = 0; r < number; ++r) changed |= list(chosen[r], leaf, scores + LEAF_VECTORS * r);
            work.row_leaves += number;
        }
        return changed;
    }

    bool list(int row, int64_t leaf, const Vector* scores) {
        Vector smallest = minimum(minimum(scores[0], scores[1]), scores[2]);
        if (!at_most(smallest, broadcast(limit[row]))) return false;
        float before = least[row];
        least[row] = std::min(before, least_of(smallest));
        limit[row] = std::min(least[row] + state[row].margin, LARGEST);
        for (int v = 0; v < LEAF_VECTORS; ++v)
            for (unsigned near = at_most(scores[v], broadcast(limit[row])); near; near &= near - 1) {
                int lane = __builtin_ctz(near);
                lists[row].push_back({leaf * LEAF + v * WIDTH + lane, scores[v][lane]});
            }
        return least[row] < before;
    }
};

}  // namespace
