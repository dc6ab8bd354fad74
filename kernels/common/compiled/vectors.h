// A vector of WIDTH floats: 16 with AVX-512, 8 with AVX2, else 4, which every 64-bit machine supports.
#pragma once
#include <cstdint>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(4 * WIDTH), aligned(8), may_alias));  // half as many

static inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
static inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
static inline Vector broadcast(float value) { return value - Vector{}; }

static inline Vector minimum(Vector a, Vector b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#else
    return a < b ? a : b;
#endif
}

static inline Vector maximum(Vector a, Vector b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}

static inline Vector square_root(Vector a) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(a);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(a);
#else
    for (int i = 0; i < WIDTH; ++i) a[i] = __builtin_sqrtf(a[i]);
    return a;
#endif
}

// A bit for each lane in which a is at most b.
static inline unsigned at_most(Vector a, Vector b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
#elif defined(__AVX2__)
    return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)));
#else
    unsigned bits = 0;
    for (int i = 0; i < WIDTH; ++i) bits |= unsigned(a[i] <= b[i]) << i;
    return bits;
#endif
}

// A bit for each lane in which a is greater than b; none where either is NaN.
static inline unsigned above(Vector a, Vector b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
#elif defined(__AVX2__)
    return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
#else
    unsigned bits = 0;
    for (int i = 0; i < WIDTH; ++i) bits |= unsigned(a[i] > b[i]) << i;
    return bits;
#endif
}

// WIDTH / 2 floats, each exactly as a double.
static inline Doubles widen(const float* from) {
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(_mm256_loadu_ps(from));
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(_mm_loadu_ps(from));
#else
    Doubles result;
    for (int i = 0; i < WIDTH / 2; ++i) result[i] = from[i];
    return result;
#endif
}

static inline double sum(Doubles a) {
    double result = 0;
    for (int i = 0; i < WIDTH / 2; ++i) result += a[i];
    return result;
}

static inline float sum(Vector a) {
    float result = 0;
    for (int i = 0; i < WIDTH; ++i) result += a[i];
    return result;
}

static inline float least_of(Vector a) {
    float result = a[0];
    for (int i = 1; i < WIDTH; ++i) result = a[i] < result ? a[i] : result;
    return result;
}

// A square of SQUARE rows of `from`, `from_stride` apart, to the columns of `to`.
#if defined(__AVX2__)
constexpr int64_t SQUARE = 8;

static inline void transpose_square(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    __m256 row[8], pair[8], four[8];
    for (int i = 0; i < 8; ++i) row[i] = _mm256_loadu_ps(from + i * from_stride);
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {  // channels 2j and 2j + 1 of each half, of four rows
            four[i + 2 * j] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], _MM_SHUFFLE(1, 0, 1, 0));
            four[i + 2 * j + 1] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], _MM_SHUFFLE(3, 2, 3, 2));
        }
    for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(four[i], four[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(four[i], four[i + 4], 0x31));
    }
}
#else
constexpr int64_t SQUARE = 4;

static inline void transpose_square(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    for (int64_t i = 0; i < SQUARE; ++i)
        for (int64_t j = 0; j < SQUARE; ++j) to[j * to_stride + i] = from[i * from_stride + j];
}
#endif
