// Distances from a tile of rows to boxes: of the whole tile to WIDTH boxes at once, and of each row to one box.
#pragma once
#include "nearest/tree.h"

namespace {

constexpr int TILE = 16;  // rows
constexpr int TILE_VECTORS = TILE / WIDTH;
constexpr unsigned ALL_LANES = (1u << (WIDTH - 1)) * 2u - 1u;

// The rows of a tile that are searched: their coordinates, the box around them, and how far each reaches, squared.
struct Reach {
    float coordinates[MOST_COORDINATES][TILE];
    float low[MOST_COORDINATES], high[MOST_COORDINATES];
    float squares[TILE], furthest;
};

// A bit for each of WIDTH boxes that is not certainly out of every row's reach; the squared distances to `bounds`.
template <int DIMS>
unsigned near_boxes(const Reach& reach, const float* boxes, float* bounds) {
    Vector square = {}, zero = {};
#pragma GCC unroll 8
    for (int p = 0; p < DIMS; ++p, boxes += 2 * WIDTH) {
        Vector gap = maximum(maximum(load(boxes) - reach.high[p], reach.low[p] - load(boxes + WIDTH)), zero);
        square += gap * gap;
    }
    store(bounds, square);
    return ~above(square, broadcast(reach.furthest)) & ALL_LANES;
}

// A bit for each row whose reach the box, one lane of WIDTH boxes, is not certainly out of.
template <int DIMS>
unsigned near_rows(const Reach& reach, const float* box) {
    Vector square[TILE_VECTORS] = {}, zero = {};
#pragma GCC unroll 8
    for (int p = 0; p < DIMS; ++p, box += 2 * WIDTH)
#pragma GCC unroll 4
        for (int v = 0; v < TILE_VECTORS; ++v) {
            Vector value = load(&reach.coordinates[p][v * WIDTH]);
            Vector gap = maximum(maximum(box[0] - value, value - box[WIDTH]), zero);
            square[v] += gap * gap;
        }
    unsigned near = 0;
#pragma GCC unroll 4
    for (int v = 0; v < TILE_VECTORS; ++v)
        near |= (~above(square[v], load(reach.squares + v * WIDTH)) & ALL_LANES) << v * WIDTH;
    return near;
}

using NearBoxes = unsigned (*)(const Reach&, const float*, float*);
using NearRows = unsigned (*)(const Reach&, const float*);

inline NearBoxes choose_near_boxes(int dims) {
    static constexpr NearBoxes UNROLLED[] = {near_boxes<1>, near_boxes<2>, near_boxes<3>, near_boxes<4>,
                                             near_boxes<5>, near_boxes<6>, near_boxes<7>, near_boxes<8>};
    return UNROLLED[dims - 1];
}

inline NearRows choose_near_rows(int dims) {
    static constexpr NearRows UNROLLED[] = {near_rows<1>, near_rows<2>, near_rows<3>, near_rows<4>,
                                            near_rows<5>, near_rows<6>, near_rows<7>, near_rows<8>};
    return UNROLLED[dims - 1];
}

}  // namespace
