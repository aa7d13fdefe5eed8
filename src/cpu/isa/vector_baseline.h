// Any processor: vectors of 16 bytes in plain C++, which compilers turn into SSE2 on x86-64 and into NEON on ARM.
#pragma once

#include <cstdint>

#include "semantics/element_types.h"

namespace ort_roialign::cpu {
namespace {

constexpr const char* kIsaName = "baseline";

template <typename Real>
struct Vector {
  static constexpr int kLanes = 16 / static_cast<int>(sizeof(Real));
  typedef Real Lanes __attribute__((vector_size(16)));  // of GCC and Clang
  Lanes value;

  static Vector broadcast(Real number) { return {Lanes{} + number}; }

  template <typename T>
  static Vector load(const T* from) {
    Vector result;
    for (int i = 0; i < kLanes; ++i) result.value[i] = widen(from[i]);
    return result;
  }
  static Vector load(const Real* from) {
    Vector result;
    __builtin_memcpy(&result.value, from, sizeof(Lanes));
    return result;
  }

  // The first `count` lanes, the others 0; nothing beyond them is read.
  template <typename T>
  static Vector load_some(const T* from, int count) {
    Vector result = broadcast(0);
    for (int i = 0; i < count; ++i) result.value[i] = widen(from[i]);
    return result;
  }

  // The numbers at `places` of the first `width` from `from` on, of which whole vectors may be read.
  static Vector pick(const Real* from, int, const int32_t* places) {
    Vector result;
    for (int i = 0; i < kLanes; ++i) result.value[i] = from[places[i]];
    return result;
  }

  template <typename T>
  void store(T* to) const {
    for (int i = 0; i < kLanes; ++i) to[i] = narrow<T>(value[i]);
  }
  void store(Real* to) const { __builtin_memcpy(to, &value, sizeof(Lanes)); }

  template <typename T>
  void store_some(T* to, int count) const {
    for (int i = 0; i < count; ++i) to[i] = narrow<T>(value[i]);
  }

  friend Vector operator*(Vector a, Vector b) { return {a.value * b.value}; }

  friend Vector multiply_add(Vector a, Vector b, Vector sum) {
#ifdef __FP_FAST_FMA  // ARM has it; on x86-64 without AVX2 it would be a call for each lane
    for (int i = 0; i < kLanes; ++i) {
      sum.value[i] = sizeof(Real) == sizeof(float) ? __builtin_fmaf(a.value[i], b.value[i], sum.value[i])
                                                   : __builtin_fma(a.value[i], b.value[i], sum.value[i]);
    }
    return sum;
#else
    return {a.value * b.value + sum.value};
#endif
  }

  // The larger one, or NaN where there is one.
  friend Vector maximum(Vector a, Vector b) {
    const Lanes not_less = a.value >= b.value ? a.value : b.value;  // b where one of them is NaN
    return {a.value == a.value ? not_less : a.value};
  }

  // Takes `candidate` and its number in the lanes where it is larger or a first NaN.
  void take_larger(Vector candidate, Vector number, Vector& winner) {
    const auto larger = (value == value) & ~(candidate.value <= value);
    value = larger ? candidate.value : value;
    winner.value = larger ? number.value : winner.value;
  }

  // Itself in the lanes where both others are equal, 0 in the others.
  Vector where_equal(Vector a, Vector b) const { return {a.value == b.value ? value : Lanes{}}; }
};

// Writes 64 bytes to memory. There is no portable way past the caches.
inline void stream_line(const void* from, void* to) { __builtin_memcpy(to, from, 64); }
inline void stream_end() {}

// Transposes the square that as many vectors as lanes are.
template <typename Real, int kLanes>
void transpose(Vector<Real> (&rows)[kLanes]) {
  Real square[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i) rows[i].store(square[i]);
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j) rows[i].value[j] = square[j][i];
  }
}

}  // namespace
}  // namespace ort_roialign::cpu
