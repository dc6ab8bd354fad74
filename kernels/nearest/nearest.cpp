// The nearest code of each row, and the row's highest score: threads, and the C interface.
#include <cstdlib>

#include "nearest/pruned.h"
#include "nearest/search.h"

namespace {

template <class Compare>
void search_all(const float* x, int64_t count, const Codebook& book, int64_t threads, const Found& found) {
    int64_t share = ((count + threads - 1) / threads + ROWS - 1) / ROWS * ROWS;
    int64_t step = std::clamp<int64_t>(share, ROWS, BLOCK);
#pragma omp parallel num_threads(threads)
    {
        Search<Compare> search(book);
#pragma omp for schedule(dynamic)
        for (int64_t start = 0; start < count; start += step)
            search.run(x + start * book.dim, std::min(step, count - start), found, start);
    }
}

// The leaf of each row: leaves [count].
void find_leaves(const float* x, int64_t count, const Codebook& book, const Tree& tree, int64_t threads, int32_t* leaves) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> rows(BATCH * book.dim);
#pragma omp for schedule(dynamic, 64)
        for (int64_t first = 0; first < count; first += BATCH) {
            int number = int(std::min<int64_t>(BATCH, count - first));
            const float* pointers[BATCH];
            double squares[BATCH];
            float coordinates[BATCH * AXES];
            for (int r = 0; r < number; ++r) {
                float* centred = &rows[r * book.dim];
                Row row = enter_row(book, x + (first + r) * book.dim, centred);
                squares[r] = row.scored ? row.length * row.length : 0.0;
                pointers[r] = centred;
            }
            coordinates_of(number, pointers, tree.axes, squares, book.dim, coordinates);
            for (int r = 0; r < number; ++r) leaves[first + r] = int32_t(tree.leaf_of(coordinates + r * AXES));
        }
    }
}

// The rows in the order of their leaves.
std::vector<int32_t> rows_by_leaf(const std::vector<int32_t>& leaf, int64_t leaves) {
    std::vector<int64_t> next(leaves + 1, 0);
    for (int32_t l : leaf) ++next[l + 1];
    for (int64_t l = 0; l < leaves; ++l) next[l + 1] += next[l];
    std::vector<int32_t> rows(leaf.size());
    for (size_t row = 0; row < leaf.size(); ++row) rows[next[leaf[row]]++] = int32_t(row);
    return rows;
}

}  // namespace

extern "C" {

// x [count, dim] → indices [count], squared distances [count] and, unless null, the chosen codes [count, dim].
void quantizers_nearest(const float* x, int64_t count, const float* codes, int64_t size, int64_t dim, const float* packed,
                        const float* bias, const float* centre, const double* extent, const int32_t* order,
                        int64_t threads, int64_t* indices, float* distances, float* chosen) {
    Codebook book{codes, packed, bias, centre, order, size, dim, extent[0], extent[1]};
    search_all<ByDistance>(x, count, book, threads, {indices, distances, chosen});
}

// The same, by the leaves of a tree. Of the tiles of rows, every stride-th is searched. Writes to work[3] the rows that
// were searched, the pairs of row and leaf that were scored, and those of tile and leaf whose boxes were compared.
void quantizers_nearest_pruned(const float* x, int64_t count, const float* codes, int64_t size, int64_t dim,
                               const float* packed, const float* bias, const float* centre, const double* extent,
                               const int32_t* order, const float* axes, const int32_t* axis, const float* cut,
                               const float* boxes, const float* outer, const double* slack, int64_t stride, int64_t threads,
                               int64_t* indices, float* distances, float* chosen, int64_t* work) {
    Codebook book{codes, packed, bias, centre, order, size, dim, extent[0], extent[1]};
    Tree tree{book.leaves(), dim, axes, axis, cut, boxes, outer, *slack};
    std::vector<int32_t> leaf(count);
    find_leaves(x, count, book, tree, threads, leaf.data());
    std::vector<int32_t> rows = rows_by_leaf(leaf, tree.leaves);
    int64_t searched = 0, row_leaves = 0, tile_leaves = 0, tiles = (count + TILE - 1) / TILE;
#pragma omp parallel num_threads(threads) reduction(+ : searched, row_leaves, tile_leaves)
    {
        PrunedSearch search(book, tree);
#pragma omp for schedule(dynamic, 4)
        for (int64_t tile = 0; tile < tiles; tile += stride) {
            int64_t first = tile * TILE;
            int number = int(std::min<int64_t>(TILE, count - first));
            search.run(x, rows.data() + first, leaf.data(), number, {indices, distances, chosen});
            searched += number;
        }
        row_leaves += search.row_leaves;
        tile_leaves += search.tile_leaves;
    }
    work[0] = searched;
    work[1] = row_leaves;
    work[2] = tile_leaves;
}

// argmax x·code − bias for x [count, dim], with the bias and the zero centre that were packed → indices [count].
void quantizers_highest_score(const float* x, int64_t count, const float* codes, int64_t size, int64_t dim,
                              const float* packed, const float* bias, const float* centre, const double* extent,
                              const int32_t* order, int64_t threads, int64_t* indices) {
    Codebook book{codes, packed, bias, centre, order, size, dim, extent[0], extent[1]};
    search_all<ByScore>(x, count, book, threads, {indices, nullptr, nullptr});
}
}
