// The code of a row from its candidates: one is certain, and several are compared in float64.
#pragma once
#include <algorithm>
#include <vector>

#include "nearest/codebook.h"

namespace {

double squared_distance(const float* x, const float* code, int64_t dim) {
    constexpr int HALF = WIDTH / 2, SUMS = 4;  // independent, so that additions do not wait for each other
    Doubles totals[SUMS] = {};
    auto add = [&](int64_t d, Doubles& total) {
        Doubles difference = widen(x + d) - widen(code + d);
        total += difference * difference;
    };
    int64_t d = 0;
    for (; d + SUMS * HALF <= dim; d += SUMS * HALF)
        for (int i = 0; i < SUMS; ++i) add(d + i * HALF, totals[i]);
    for (; d + HALF <= dim; d += HALF) add(d, totals[0]);
    double result = sum(totals[0] + totals[1] + totals[2] + totals[3]);
    for (; d < dim; ++d) {
        double difference = double(x[d]) - double(code[d]);
        result += difference * difference;
    }
    return result;
}

// The score (1) of a code in float64, not finite for a code that is not.
inline double score_in_double(const float* x, const Codebook& book, int64_t k) {
    constexpr int HALF = WIDTH / 2;
    const float* code = book.codes + k * book.dim;
    Doubles total = {};
    int64_t d = 0;
    for (; d + HALF <= book.dim; d += HALF) {
        Doubles centre = widen(book.centre + d), centred = widen(code + d) - centre;
        total += (0.5 * centred - (widen(x + d) - centre)) * centred;
    }
    double result = sum(total);
    for (; d < book.dim; ++d) {
        double centred = double(code[d]) - book.centre[d];
        result += (0.5 * centred - (double(x[d]) - book.centre[d])) * centred;
    }
    return result;
}

// The error of these scores, E of (3).
inline double score_error(const float* x, const Codebook& book) {
    double length = std::sqrt(squared_distance(x, book.centre, book.dim));
    return relative_error(book.dim) * (length * book.radius + book.largest_bias);
}

// Keeps the codes that may be the nearest by (1) to (3) in float64.
inline void keep_best_scores(const float* x, const Codebook& book, std::vector<int64_t>& codes) {
    std::vector<double> scores;
    double least = std::numeric_limits<double>::infinity();
    for (int64_t k : codes) {
        scores.push_back(score_in_double(x, book, k));
        least = scores.back() < least ? scores.back() : least;
    }
    double threshold = least + 2 * score_error(x, book);
    size_t kept = 0;
    for (size_t i = 0; i < codes.size(); ++i)
        if (scores[i] <= threshold) codes[kept++] = codes[i];
    codes.resize(kept);
}

inline void list_all(const Codebook& book, std::vector<int64_t>& codes) {
    for (int64_t k = 0; k < book.size; ++k) codes.push_back(k);
}

// Codes are compared by distance: equation (5).
struct ByDistance {
    static double value(const float* x, const Codebook& book, int64_t k) {
        return squared_distance(x, book.codes + k * book.dim, book.dim);
    }
    // The difference form alone cannot distinguish codes if rounding to the row's own length hides their differences.
    static void narrow(const float* x, const Codebook& book, std::vector<int64_t>& codes) {
        keep_best_scores(x, book, codes);
    }
    static double threshold(double smallest, const float*, const Codebook& book) {
        double tie = 1 + relative_error(book.dim);
        return smallest * tie * tie;
    }
};

// Codes are compared by −(x·code + bias). Every form of it cancels, so scores within twice the bound count as equal.
struct ByScore {
    static void narrow(const float*, const Codebook&, std::vector<int64_t>&) {}
    static double value(const float* x, const Codebook& book, int64_t k) {
        const float* code = book.codes + k * book.dim;
        double score = book.bias[k];
        for (int64_t d = 0; d < book.dim; ++d) score -= double(x[d]) * code[d];
        return score;
    }
    static double threshold(double smallest, const float* x, const Codebook& book) {
        double square = 0;
        for (int64_t d = 0; d < book.dim; ++d) square += double(x[d]) * x[d];
        double scale = std::sqrt(square) * book.radius + book.largest_bias;
        return smallest + 2 * relative_error(book.dim) * scale;
    }
};

// What is found for the rows of a search; null where it is not wanted.
struct Found {
    int64_t* indices;
    float *distances, *chosen;
};

template <class Compare>
class Decision {
   public:
    explicit Decision(const Codebook& book) : book(book) {}

    // Writes the code of x to position `row`: the only candidate, or the lowest of the best; −1 for a row that is not
    // finite. Without a candidate (the row is not scored, or no code is finite) every code is one.
    void write(const float* x, bool finite, std::vector<int64_t>& candidates, const Found& found, int64_t row) {
        double nearest = std::numeric_limits<double>::quiet_NaN();
        int64_t index = finite ? decide(x, candidates, &nearest) : -1;
        found.indices[row] = index;
        if (found.distances) found.distances[row] = float(nearest);
        if (!found.chosen) return;
        if (index >= 0)
            std::copy_n(book.codes + index * book.dim, book.dim, found.chosen + row * book.dim);
        else
            std::fill_n(found.chosen + row * book.dim, book.dim, 0.0f);
    }

   private:
    const Codebook& book;
    std::vector<double> values;

    int64_t decide(const float* x, std::vector<int64_t>& codes, double* best) {
        if (codes.size() == 1) {
            *best = Compare::value(x, book, codes[0]);
            return codes[0];
        }
        if (codes.empty()) list_all(book, codes);
        Compare::narrow(x, book, codes);
        values.clear();
        double smallest = std::numeric_limits<double>::infinity();
        for (int64_t k : codes) {
            values.push_back(Compare::value(x, book, k));
            smallest = values.back() < smallest ? values.back() : smallest;
        }
        if (!(smallest < std::numeric_limits<double>::infinity())) return -1;
        double threshold = Compare::threshold(smallest, x, book);
        int64_t lowest = book.size;
        for (size_t i = 0; i < codes.size(); ++i)
            if (values[i] <= threshold && codes[i] < lowest) lowest = codes[i], *best = values[i];
        return lowest;
    }
};

}  // namespace
