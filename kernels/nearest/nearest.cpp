// The nearest code of each row, and the row's highest score: threads, and the C interface.
#include <memory>

#include "common/compiled/parallel.h"
#include "nearest/pruned.h"
#include "nearest/search.h"

namespace {

template <class Compare>
void search_all(const float* x, int64_t count, const Codebook& book, int64_t threads, const Found& found) {
    int64_t share = ((count + threads - 1) / threads + ROWS - 1) / ROWS * ROWS;
    in_chunks(count, std::clamp<int64_t>(share, ROWS, BLOCK), threads, [&] {
        return [&, search = std::make_unique<Search<Compare>>(book)](int64_t begin, int64_t end) {
            search->run(x + begin * book.dim, end - begin, found, begin);
        };
    });
}

// The leaf of each of 1 to BATCH rows; `rows` is memory for them.
void find_some_leaves(const float* x, int number, const Codebook& book, const Tree& tree, float* rows, int32_t* leaves) {
    const float* pointers[BATCH];
    double squares[BATCH];
    float coordinates[BATCH * AXES];
    for (int r = 0; r < number; ++r) {
        float* centred = rows + r * book.dim;
        Row row = enter_row(book, x + r * book.dim, centred);
        squares[r] = row.scored ? row.length * row.length : 0.0;
        pointers[r] = centred;
    }
    coordinates_of(number, pointers, tree.axes, squares, book.dim, coordinates);
    for (int r = 0; r < number; ++r) leaves[r] = int32_t(tree.leaf_of(coordinates + r * AXES));
}

// The leaf of each row: leaves [count].
void find_leaves(const float* x, int64_t count, const Codebook& book, const Tree& tree, int64_t threads, int32_t* leaves) {
    in_chunks(count, 64 * BATCH, threads, [&] {
        return [&, rows = std::vector<float>(BATCH * book.dim)](int64_t begin, int64_t end) mutable {
            for (int64_t first = begin; first < end; first += BATCH)
                find_some_leaves(x + first * book.dim, int(std::min<int64_t>(BATCH, end - first)), book, tree, rows.data(),
                                 leaves + first);
        };
    });
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
    std::atomic<int64_t> pairs[3] = {};
    in_chunks((count + TILE * stride - 1) / (TILE * stride), 4, threads, [&] {
        return [&, search = std::make_unique<PrunedSearch>(book, tree)](int64_t begin, int64_t end) {
            Work before = search->work;
            for (int64_t tile = begin * stride; tile < end * stride; tile += stride) {
                int64_t first = tile * TILE;
                int number = int(std::min<int64_t>(TILE, count - first));
                search->run(x, rows.data() + first, leaf.data(), number, {indices, distances, chosen});
            }
            pairs[0] += search->work.rows - before.rows;
            pairs[1] += search->work.row_leaves - before.row_leaves;
            pairs[2] += search->work.tile_leaves - before.tile_leaves;
        };
    });
    std::copy_n(pairs, 3, work);
}

// argmax x·code − bias for x [count, dim], with the bias and the zero centre that were packed → indices [count].
void quantizers_highest_score(const float* x, int64_t count, const float* codes, int64_t size, int64_t dim,
                              const float* packed, const float* bias, const float* centre, const double* extent,
                              const int32_t* order, int64_t threads, int64_t* indices) {
    Codebook book{codes, packed, bias, centre, order, size, dim, extent[0], extent[1]};
    search_all<ByScore>(x, count, book, threads, {indices, nullptr, nullptr});
}
}
