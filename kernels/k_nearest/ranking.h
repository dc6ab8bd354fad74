// The order of a row's candidates: equations (1) and (2) of kernels/k_nearest/README.md.
#pragma once
#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <vector>

namespace {

struct Scored {
    int64_t code;
    double score, distance;  // the latter squared
};

// What decides between codes: scores farther apart than `margin` tell which is nearer, and so do squared distances of
// which one exceeds the other by more than the factor `tie` squared.
struct Resolution {
    double margin, tie;
};

// Puts codes in order, nearest first: each is the nearest of those that are left, the lowest index on ties.
class Ranking {
   public:
    // `codes` come in the order of their scores. `limit` bounds the scores that may belong to the nearest. Only the first
    // `wanted` places need to be in order.
    void run(std::vector<Scored>& codes, Resolution resolution, double limit, size_t wanted) {
        for (size_t first = 0; first < std::min(wanted, codes.size());) {
            limit = std::max(limit, codes[first].score + resolution.margin);
            size_t end = first + 1;
            while (end < codes.size() && codes[end].score <= limit) ++end;
            // If the scores that follow are out of reach of all of these, then distances alone order these.
            if (end == codes.size() || codes[end].score > codes[end - 1].score + resolution.margin) {
                if (end > first + 1) sort(codes, first, end, resolution.tie, wanted);
                first = end;
            } else {
                auto nearest = codes.begin() + nearest_of(codes, first, end, resolution.tie);
                std::rotate(codes.begin() + first, nearest, nearest + 1);
                ++first;
            }
        }
    }

   private:
    std::vector<Scored> sorted;
    std::vector<char> taken;

    static double threshold(double smallest, double tie) { return smallest * tie * tie; }

    static size_t nearest_of(const std::vector<Scored>& codes, size_t first, size_t end, double tie) {
        double smallest = std::numeric_limits<double>::infinity();
        for (size_t i = first; i < end; ++i) smallest = std::min(smallest, codes[i].distance);
        size_t nearest = end;
        for (size_t i = first; i < end; ++i)
            if (codes[i].distance <= threshold(smallest, tie) && (nearest == end || codes[i].code < codes[nearest].code))
                nearest = i;
        return nearest;
    }

    // Repeats `nearest_of` until none of [first, end) is left: a window moves over the sorted distances, and a heap yields
    // the lowest index in it.
    void sort(std::vector<Scored>& codes, size_t first, size_t end, double tie, size_t wanted) {
        sorted.assign(codes.begin() + first, codes.begin() + end);
        std::sort(sorted.begin(), sorted.end(), [](const Scored& a, const Scored& b) {
            return a.distance < b.distance || (a.distance == b.distance && a.code < b.code);
        });
        taken.assign(sorted.size(), 0);
        using Entry = std::pair<int64_t, size_t>;  // a code, and its place in `sorted`
        std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> window;
        size_t least = 0, next = 0;
        for (size_t place = first; place < std::min(end, wanted); ++place) {
            while (taken[least]) ++least;
            for (; next < sorted.size() && sorted[next].distance <= threshold(sorted[least].distance, tie); ++next)
                window.push({sorted[next].code, next});
            size_t chosen = window.top().second;
            window.pop();
            taken[chosen] = 1;
            codes[place] = sorted[chosen];
        }
    }
};

// Writes the first k codes and their squared distances; −1 and NaN where there are fewer.
template <class Real>
void write_first(const std::vector<Scored>& codes, int64_t k, int64_t* indices, Real* distances) {
    for (int64_t i = 0; i < k; ++i) {
        bool found = i < int64_t(codes.size());
        indices[i] = found ? codes[i].code : -1;
        distances[i] = found ? Real(codes[i].distance) : std::numeric_limits<Real>::quiet_NaN();
    }
}

// Removes codes whose value is above `limit(v)`, v the k-th smallest value, and returns that limit.
template <class Value, class Limit>
double keep_nearest(std::vector<Scored>& codes, size_t k, Value value, Limit limit) {
    if (codes.size() <= k) return std::numeric_limits<double>::infinity();
    auto less = [&](const Scored& a, const Scored& b) { return value(a) < value(b); };
    std::nth_element(codes.begin(), codes.begin() + (k - 1), codes.end(), less);
    double largest = limit(value(codes[k - 1]));
    auto beyond = [&](const Scored& each) { return value(each) > largest; };
    codes.erase(std::remove_if(codes.begin() + k, codes.end(), beyond), codes.end());
    return largest;
}

}  // namespace
