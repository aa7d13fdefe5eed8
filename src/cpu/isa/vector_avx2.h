// AVX2 with FMA and F16C: eight float32 or four float64 numbers in one register.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "semantics/element_types.h"

namespace ort_roialign::cpu {
namespace {

constexpr const char* kIsaName = "avx2";

template <typename Real>
struct Vector;

// Copies `count` elements to or from a whole vector's worth of them.
template <typename T, int kLanes>
struct Some {
  T elements[kLanes] = {};

  Some() = default;
  Some(const T* from, int count) { __builtin_memcpy(elements, from, count * sizeof(T)); }
  void copy_to(T* to, int count) const { __builtin_memcpy(to, elements, count * sizeof(T)); }
};

template <>
struct Vector<float> {
  static constexpr int kLanes = 8;
  __m256 value;

  static Vector broadcast(float number) { return {_mm256_set1_ps(number)}; }

  static Vector load(const float* from) { return {_mm256_loadu_ps(from)}; }
  static Vector load(const Float16* from) { return {_mm256_cvtph_ps(load_8(from))}; }
  static Vector load(const BFloat16* from) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_8(from)), 16))};
  }

  // The first `count` lanes, the others 0; nothing beyond them is read.
  static Vector load_some(const float* from, int count) { return {_mm256_maskload_ps(from, first(count))}; }
  template <typename T>
  static Vector load_some(const T* from, int count) {
    return load(Some<T, kLanes>(from, count).elements);
  }

  // The numbers at `places` of the first `width` from `from` on, of which whole vectors may be read.
  static Vector pick(const float* from, int width, const int32_t* places) {
    const __m256i indices = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places));
    if (width > kLanes) return {_mm256_i32gather_ps(from, indices, sizeof(float))};
    return {_mm256_permutevar8x32_ps(_mm256_loadu_ps(from), indices)};
  }

  void store(float* to) const { _mm256_storeu_ps(to, value); }
  void store(Float16* to) const { store_8(to, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
  void store(BFloat16* to) const {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet_nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet_nan, is_nan), 16);
    store_8(to, _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1)));
  }

  void store_some(float* to, int count) const { _mm256_maskstore_ps(to, first(count), value); }
  template <typename T>
  void store_some(T* to, int count) const {
    Some<T, kLanes> all;
    store(all.elements);
    all.copy_to(to, count);
  }

  friend Vector operator*(Vector a, Vector b) { return {_mm256_mul_ps(a.value, b.value)}; }
  friend Vector multiply_add(Vector a, Vector b, Vector sum) { return {_mm256_fmadd_ps(a.value, b.value, sum.value)}; }

  // The larger one, or NaN where there is one.
  friend Vector maximum(Vector a, Vector b) {
    const __m256 larger = _mm256_max_ps(a.value, b.value);  // b where one of them is NaN
    return {_mm256_blendv_ps(larger, a.value, _mm256_cmp_ps(a.value, a.value, _CMP_UNORD_Q))};
  }

  // Takes `candidate` and its number in the lanes where it is larger or a first NaN.
  void take_larger(Vector candidate, Vector number, Vector& winner) {
    const __m256 ordered = _mm256_cmp_ps(value, value, _CMP_ORD_Q);
    const __m256 larger = _mm256_and_ps(ordered, _mm256_cmp_ps(candidate.value, value, _CMP_NLE_UQ));
    value = _mm256_blendv_ps(value, candidate.value, larger);
    winner.value = _mm256_blendv_ps(winner.value, number.value, larger);
  }

  // Itself in the lanes where both others are equal, 0 in the others.
  Vector where_equal(Vector a, Vector b) const {
    return {_mm256_and_ps(value, _mm256_cmp_ps(a.value, b.value, _CMP_EQ_OQ))};
  }

 private:
  static __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static __m128i load_8(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
  static void store_8(void* to, __m128i bits) { _mm_storeu_si128(static_cast<__m128i*>(to), bits); }
};

template <>
struct Vector<double> {
  static constexpr int kLanes = 4;
  __m256d value;

  static Vector broadcast(double number) { return {_mm256_set1_pd(number)}; }
  static Vector load(const double* from) { return {_mm256_loadu_pd(from)}; }
  static Vector load_some(const double* from, int count) { return {_mm256_maskload_pd(from, first(count))}; }
  static Vector pick(const double* from, int, const int32_t* places) {
    const __m128i indices = _mm_loadu_si128(reinterpret_cast<const __m128i*>(places));
    return {_mm256_i32gather_pd(from, indices, sizeof(double))};
  }
  void store(double* to) const { _mm256_storeu_pd(to, value); }
  void store_some(double* to, int count) const { _mm256_maskstore_pd(to, first(count), value); }

  friend Vector operator*(Vector a, Vector b) { return {_mm256_mul_pd(a.value, b.value)}; }
  friend Vector multiply_add(Vector a, Vector b, Vector sum) { return {_mm256_fmadd_pd(a.value, b.value, sum.value)}; }
  friend Vector maximum(Vector a, Vector b) {
    const __m256d larger = _mm256_max_pd(a.value, b.value);
    return {_mm256_blendv_pd(larger, a.value, _mm256_cmp_pd(a.value, a.value, _CMP_UNORD_Q))};
  }
  void take_larger(Vector candidate, Vector number, Vector& winner) {
    const __m256d ordered = _mm256_cmp_pd(value, value, _CMP_ORD_Q);
    const __m256d larger = _mm256_and_pd(ordered, _mm256_cmp_pd(candidate.value, value, _CMP_NLE_UQ));
    value = _mm256_blendv_pd(value, candidate.value, larger);
    winner.value = _mm256_blendv_pd(winner.value, number.value, larger);
  }
  Vector where_equal(Vector a, Vector b) const {
    return {_mm256_and_pd(value, _mm256_cmp_pd(a.value, b.value, _CMP_EQ_OQ))};
  }

 private:
  static __m256i first(int count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
  }
};

// Writes 64 bytes to an aligned place in memory, past the caches.
inline void stream_line(const void* from, void* to) {
  const __m256i* source = static_cast<const __m256i*>(from);
  __m256i* target = static_cast<__m256i*>(to);
  _mm256_stream_si256(target, _mm256_loadu_si256(source));
  _mm256_stream_si256(target + 1, _mm256_loadu_si256(source + 1));
}
// Makes the lines visible to other threads.
inline void stream_end() { _mm_sfence(); }

// Transposes the square that as many vectors as lanes are.
inline void transpose(Vector<float> (&rows)[8]) {
  __m256 fours[8];  // fours[4 i + j] holds columns j and 4 + j of rows 4 i to 4 i + 3
  for (int i = 0; i < 8; i += 4) {
    const __m256 low_01 = _mm256_unpacklo_ps(rows[i].value, rows[i + 1].value);
    const __m256 high_01 = _mm256_unpackhi_ps(rows[i].value, rows[i + 1].value);
    const __m256 low_23 = _mm256_unpacklo_ps(rows[i + 2].value, rows[i + 3].value);
    const __m256 high_23 = _mm256_unpackhi_ps(rows[i + 2].value, rows[i + 3].value);
    fours[i] = _mm256_shuffle_ps(low_01, low_23, 0x44);
    fours[i + 1] = _mm256_shuffle_ps(low_01, low_23, 0xee);
    fours[i + 2] = _mm256_shuffle_ps(high_01, high_23, 0x44);
    fours[i + 3] = _mm256_shuffle_ps(high_01, high_23, 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    rows[j].value = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x20);
    rows[4 + j].value = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x31);
  }
}

inline void transpose(Vector<double> (&rows)[4]) {
  const __m256d low_01 = _mm256_unpacklo_pd(rows[0].value, rows[1].value);
  const __m256d high_01 = _mm256_unpackhi_pd(rows[0].value, rows[1].value);
  const __m256d low_23 = _mm256_unpacklo_pd(rows[2].value, rows[3].value);
  const __m256d high_23 = _mm256_unpackhi_pd(rows[2].value, rows[3].value);
  rows[0].value = _mm256_permute2f128_pd(low_01, low_23, 0x20);
  rows[1].value = _mm256_permute2f128_pd(high_01, high_23, 0x20);
  rows[2].value = _mm256_permute2f128_pd(low_01, low_23, 0x31);
  rows[3].value = _mm256_permute2f128_pd(high_01, high_23, 0x31);
}

}  // namespace
}  // namespace ort_roialign::cpu
