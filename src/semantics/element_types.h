// The element types of feature maps, and how they widen for arithmetic and round back.
#pragma once

#include <cstdint>
#include <cstring>

#include "semantics/host_device.h"

namespace ort_roialign {

// IEEE 754 binary16, stored as its bits.
struct Float16 {
  uint16_t bits;
};

// The upper half of an IEEE 754 binary32, stored as its bits.
struct BFloat16 {
  uint16_t bits;
};

// Coordinates, interpolation weights and sums are computed in this type: float64 for float64 maps, float32 for every
// other, because a float16 coordinate has steps of one pixel above 1024.
template <typename T>
struct ComputeTypeOf {
  using type = float;
};
template <>
struct ComputeTypeOf<double> {
  using type = double;
};
template <typename T>
using ComputeType = typename ComputeTypeOf<T>::type;

template <typename To, typename From>
ORT_ROIALIGN_HD inline To reinterpret_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "both types must have the same size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

ORT_ROIALIGN_HD inline float widen(float value) { return value; }
ORT_ROIALIGN_HD inline double widen(double value) { return value; }

ORT_ROIALIGN_HD inline float widen(BFloat16 value) {
  return reinterpret_bits<float>(static_cast<uint32_t>(value.bits) << 16);
}

ORT_ROIALIGN_HD inline float widen(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity and NaN: the exponent field of all ones widens, the payload is kept
    return reinterpret_bits<float>(sign | 0x7f800000u | ((magnitude & 0x03ffu) << 13));
  }
  // The shifted bits are the value scaled down by 2^112 (the difference of the exponent biases, 127 - 15); the
  // multiplication is exact and also turns float16's subnormal numbers into normal ones.
  const float scaled = reinterpret_bits<float>(magnitude << 13) * 5.192296858534828e33f;
  return reinterpret_bits<float>(reinterpret_bits<uint32_t>(scaled) | sign);
}

// Rounds to nearest, ties to even, as IEEE 754 conversions do; NaN stays NaN.
template <typename T>
ORT_ROIALIGN_HD T narrow(ComputeType<T> value);

template <>
ORT_ROIALIGN_HD inline float narrow<float>(float value) {
  return value;
}

template <>
ORT_ROIALIGN_HD inline double narrow<double>(double value) {
  return value;
}

template <>
ORT_ROIALIGN_HD inline BFloat16 narrow<BFloat16>(float value) {
  const uint32_t bits = reinterpret_bits<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x0040u)};  // a quiet NaN
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <>
ORT_ROIALIGN_HD inline Float16 narrow<Float16>(float value) {
  const uint32_t bits = reinterpret_bits<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14 and above: a normal float16
    half = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  } else {  // Adding 0.5 makes the float32 adder round at float16's subnormal step, 2^-24.
    half = reinterpret_bits<uint32_t>(reinterpret_bits<float>(magnitude) + 0.5f) - 0x3f000000u;
  }
  return {static_cast<uint16_t>(sign | half)};
}

}  // namespace ort_roialign
