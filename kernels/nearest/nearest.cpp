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

// The rows in the order of their leaves.
std::vector<int32_t> rows_by_leaf(const std::vector<int32_t>& leaf, int64_t leaves) {
    std::vector<int64_t> next(leaves + 1, 0);
    for (int32_t l : leaf) ++next[l + 1];
    for (int64_t l = 0; l < leaves; ++l) next[l + 1] += next[l];
    std::vector<int32_t> rows(leaf.size());
    for (size_t row = 0; row < leaf.size(); ++row) rows[next[leaf[row]]++] = int32_t(row);
    return rows;
}

// Finds the leaf of each row, and then searches every stride-th tile of the rows in the order of their leaves.
void search_leaves(const float* x, int64_t count, const Codebook& book, const Tree& tree, int64_t stride, int64_t threads,
                   const Found& found, std::atomic<int64_t>* pairs) {
    constexpr int64_t ROWS_OF_CHUNK = 64 * BATCH, TILES_OF_CHUNK = 4;
    std::vector<int32_t> leaf(count), rows;
    Chunks finding(count, ROWS_OF_CHUNK), searching((count + TILE * stride - 1) / (TILE * stride), TILES_OF_CHUNK);
    Event sorted;
    in_threads(std::min(threads, (count + TILE - 1) / TILE), [&] {
        std::vector<float> memory(BATCH * book.dim);
        auto find = [&](int64_t begin, int64_t end) {
            for (int64_t first = begin; first < end; first += BATCH)
                find_some_leaves(x + first * book.dim, int(std::min<int64_t>(BATCH, end - first)), book, tree,
                                 memory.data(), &leaf[first]);
        };
        if (finding.take(find)) {
            rows = rows_by_leaf(leaf, tree.leaves);
            sorted.happen();
        }
        sorted.wait();
        PrunedSearch search(book, tree);
        auto search_tiles = [&](int64_t begin, int64_t end) {
            for (int64_t first = begin * stride * TILE; first < end * stride * TILE; first += stride * TILE)
                search.run(x, &rows[first], leaf.data(), int(std::min<int64_t>(TILE, count - first)), found);
        };
        searching.take(search_tiles);
        pairs[0] += search.work.rows;
        pairs[1] += search.work.row_leaves;
        pairs[2] += search.work.tile_leaves;
    });
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
    std::atomic<int64_t> pairs[3] = {};
    if (count) search_leaves(x, count, book, tree, stride, threads, {indices, distances, chosen}, pairs);
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
