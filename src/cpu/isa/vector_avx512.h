// AVX-512: sixteen float32 or eight float64 numbers in one register.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "semantics/element_types.h"

namespace ort_roialign::cpu {
namespace {

constexpr const char* kIsaName = "avx512";

template <typename Real>
struct Vector;

template <>
struct Vector<float> {
  static constexpr int kLanes = 16;
  __m512 value;

  static Vector broadcast(float number) { return {_mm512_set1_ps(number)}; }

  static Vector load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static Vector load(const Float16* from) { return {_mm512_cvtph_ps(load_16(from))}; }
  static Vector load(const BFloat16* from) { return {widen(load_16(from))}; }

  // The first `count` lanes, the others 0; nothing beyond them is read.
  static Vector load_some(const float* from, int count) { return {_mm512_maskz_loadu_ps(first(count), from)}; }
  static Vector load_some(const Float16* from, int count) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), from))};
  }
  static Vector load_some(const BFloat16* from, int count) {
    return {widen(_mm256_maskz_loadu_epi16(first(count), from))};
  }

  // The numbers at `places` of the first `width` from `from` on, of which whole vectors may be read.
  static Vector pick(const float* from, int width, const int32_t* places) {
    const __m512i indices = _mm512_loadu_si512(places);
    if (width > 2 * kLanes) return {_mm512_i32gather_ps(indices, from, sizeof(float))};
    return {_mm512_permutex2var_ps(_mm512_loadu_ps(from), indices, _mm512_loadu_ps(from + kLanes))};
  }

  void store(float* to) const { _mm512_storeu_ps(to, value); }
  void store(Float16* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_float16()); }
  void store(BFloat16* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bfloat16()); }

  void store_some(float* to, int count) const { _mm512_mask_storeu_ps(to, first(count), value); }
  void store_some(Float16* to, int count) const { _mm256_mask_storeu_epi16(to, first(count), to_float16()); }
  void store_some(BFloat16* to, int count) const { _mm256_mask_storeu_epi16(to, first(count), to_bfloat16()); }

  friend Vector operator*(Vector a, Vector b) { return {_mm512_mul_ps(a.value, b.value)}; }
  friend Vector multiply_add(Vector a, Vector b, Vector sum) { return {_mm512_fmadd_ps(a.value, b.value, sum.value)}; }

  // The larger one, or NaN where there is one.
  friend Vector maximum(Vector a, Vector b) {
    const __m512 larger = _mm512_max_ps(a.value, b.value);  // b where one of them is NaN
    return {_mm512_mask_mov_ps(larger, _mm512_cmp_ps_mask(a.value, a.value, _CMP_UNORD_Q), a.value)};
  }

  // Takes `candidate` and its number in the lanes where it is larger or a first NaN.
  void take_larger(Vector candidate, Vector number, Vector& winner) {
    const __mmask16 ordered = _mm512_cmp_ps_mask(value, value, _CMP_ORD_Q);
    const __mmask16 larger = _mm512_mask_cmp_ps_mask(ordered, candidate.value, value, _CMP_NLE_UQ);
    value = _mm512_mask_mov_ps(value, larger, candidate.value);
    winner.value = _mm512_mask_mov_ps(winner.value, larger, number.value);
  }

  // Itself in the lanes where both others are equal, 0 in the others.
  Vector where_equal(Vector a, Vector b) const {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.value, b.value, _CMP_EQ_OQ), value)};
  }

 private:
  static __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1); }
  static __m256i load_16(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static __m512 widen(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }
  __m256i to_float16() const { return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  __m256i to_bfloat16() const {
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet_nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, quiet_nan), 16));
  }
};

template <>
struct Vector<double> {
  static constexpr int kLanes = 8;
  __m512d value;

  static Vector broadcast(double number) { return {_mm512_set1_pd(number)}; }
  static Vector load(const double* from) { return {_mm512_loadu_pd(from)}; }
  static Vector load_some(const double* from, int count) { return {_mm512_maskz_loadu_pd(first(count), from)}; }
  static Vector pick(const double* from, int width, const int32_t* places) {
    const __m256i indices = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places));
    if (width > 2 * kLanes) return {_mm512_i32gather_pd(indices, from, sizeof(double))};
    return {
        _mm512_permutex2var_pd(_mm512_loadu_pd(from), _mm512_cvtepi32_epi64(indices), _mm512_loadu_pd(from + kLanes))};
  }
  void store(double* to) const { _mm512_storeu_pd(to, value); }
  void store_some(double* to, int count) const { _mm512_mask_storeu_pd(to, first(count), value); }

  friend Vector operator*(Vector a, Vector b) { return {_mm512_mul_pd(a.value, b.value)}; }
  friend Vector multiply_add(Vector a, Vector b, Vector sum) { return {_mm512_fmadd_pd(a.value, b.value, sum.value)}; }
  friend Vector maximum(Vector a, Vector b) {
    const __m512d larger = _mm512_max_pd(a.value, b.value);
    return {_mm512_mask_mov_pd(larger, _mm512_cmp_pd_mask(a.value, a.value, _CMP_UNORD_Q), a.value)};
  }
  void take_larger(Vector candidate, Vector number, Vector& winner) {
    const __mmask8 ordered = _mm512_cmp_pd_mask(value, value, _CMP_ORD_Q);
    const __mmask8 larger = _mm512_mask_cmp_pd_mask(ordered, candidate.value, value, _CMP_NLE_UQ);
    value = _mm512_mask_mov_pd(value, larger, candidate.value);
    winner.value = _mm512_mask_mov_pd(winner.value, larger, number.value);
  }
  Vector where_equal(Vector a, Vector b) const {
    return {_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a.value, b.value, _CMP_EQ_OQ), value)};
  }

 private:
  static __mmask8 first(int count) { return static_cast<__mmask8>((1u << count) - 1); }
};

// Writes 64 bytes to an aligned place in memory, past the caches.
inline void stream_line(const void* from, void* to) {
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
}
inline void stream_end() { _mm_sfence(); }

// Transposes the square that as many vectors as lanes are.
inline void transpose(Vector<float> (&rows)[16]) {
  __m512 pairs[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].value, rows[i + 1].value);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].value, rows[i + 1].value);
  }
  __m512 fours[16];  // fours[4 i + j] holds column j of every group of four columns, of rows 4 i to 4 i + 3
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    fours[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512 even_upper = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0x88);
    const __m512 odd_upper = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0xdd);
    const __m512 even_lower = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0x88);
    const __m512 odd_lower = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0xdd);
    rows[j].value = _mm512_shuffle_f32x4(even_upper, even_lower, 0x88);
    rows[4 + j].value = _mm512_shuffle_f32x4(odd_upper, odd_lower, 0x88);
    rows[8 + j].value = _mm512_shuffle_f32x4(even_upper, even_lower, 0xdd);
    rows[12 + j].value = _mm512_shuffle_f32x4(odd_upper, odd_lower, 0xdd);
  }
}

inline void transpose(Vector<double> (&rows)[8]) {
  __m512d pairs[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm512_unpacklo_pd(rows[i].value, rows[i + 1].value);
    pairs[i + 1] = _mm512_unpackhi_pd(rows[i].value, rows[i + 1].value);
  }
  for (int j = 0; j < 2; ++j) {
    const __m512d even_upper = _mm512_shuffle_f64x2(pairs[j], pairs[2 + j], 0x88);
    const __m512d odd_upper = _mm512_shuffle_f64x2(pairs[j], pairs[2 + j], 0xdd);
    const __m512d even_lower = _mm512_shuffle_f64x2(pairs[4 + j], pairs[6 + j], 0x88);
    const __m512d odd_lower = _mm512_shuffle_f64x2(pairs[4 + j], pairs[6 + j], 0xdd);
    rows[j].value = _mm512_shuffle_f64x2(even_upper, even_lower, 0x88);
    rows[2 + j].value = _mm512_shuffle_f64x2(odd_upper, odd_lower, 0x88);
    rows[4 + j].value = _mm512_shuffle_f64x2(even_upper, even_lower, 0xdd);
    rows[6 + j].value = _mm512_shuffle_f64x2(odd_upper, odd_lower, 0xdd);
  }
}

}  // namespace
}  // namespace ort_roialign::cpu
