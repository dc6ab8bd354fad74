// Elementary functions without branches or calls, so that loops over them become vector instructions.
#pragma once
#include <cstdint>
#include <cstring>

template <class To, class From>
static inline To bits_of(From value) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To result;
    std::memcpy(&result, &value, sizeof(To));
    return result;
}

// eˣ for x ≤ 0 within two roundings of float32; 0 below −87. e^x = 2^n e^r, |r| ≤ ½ ln 2; r⁷/7! is 2⁻²³ of e^r.
static inline float exponential(float x) {
    float least = -87.0f, clamped = x > least ? x : least;
    float n = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f;  // 1.5·2²³: adding it rounds to an integer
    float r = clamped - n * 0.693145752f - n * 1.42860677e-6f;
    float sum = 1 / 5040.0f;
    sum = sum * r + 1 / 720.0f;
    sum = sum * r + 1 / 120.0f;
    sum = sum * r + 1 / 24.0f;
    sum = sum * r + 1 / 6.0f;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    float result = sum * bits_of<float>((int32_t(n) + 127) << 23);
    return x > least ? result : 0.0f;
}

// The same in float64 to within 2⁻⁵⁰, relative; 0 below −700.
static inline double exponential(double x) {
    double least = -700.0, clamped = x > least ? x : least;
    double shifted = clamped * 1.4426950408889634 + 0x1.8p52, n = shifted - 0x1.8p52;
    double r = clamped - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
    double sum = 1 / 6227020800.0;
    for (double factorial : {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0,
                             1.0, 1.0})
        sum = sum * r + 1 / factorial;
    double result = sum * bits_of<double>((bits_of<int64_t>(shifted) + 1023) << 52);
    return x > least ? result : 0.0;
}

// ln x for normal x > 0 within two roundings of float32: x = 2^n m, √½ ≤ m < √2, ln m = 2 artanh((m − 1)/(m + 1)).
static inline float logarithm(float x) {
    int32_t bits = bits_of<int32_t>(x), n = (bits - 0x3f3504f3) >> 23;
    float m = bits_of<float>(bits - (n << 23));
    float s = (m - 1) / (m + 1), square = s * s;
    float sum = 2 / 9.0f;
    sum = sum * square + 2 / 7.0f;
    sum = sum * square + 2 / 5.0f;
    sum = sum * square + 2 / 3.0f;
    return float(n) * 0.693147181f + (s * square * sum + 2 * s);
}

// tanh within 2⁻⁵⁰, absolute.
static inline double hyperbolic_tangent(double x) {
    double e = exponential(x < 0 ? 2 * x : -2 * x), magnitude = (1 - e) / (1 + e);
    return x < 0 ? -magnitude : magnitude;
}
