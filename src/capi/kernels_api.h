// The C functions through which Python calls the kernels without a session. Plain data, so that ctypes can write it.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Which of the values counts is up to the operator.
struct OrtRoiAlignAttribute {
  const char* name;
  int32_t kind;  // 0: integer, 1: real, 2: text, 3: reals, 4: integers; 5: none of them, `text` says what, for errors
  int64_t integer;
  float real;
  const char* text;
  const float* reals;
  const int64_t* integers;
  int64_t num_values;  // of reals or integers
};

struct OrtRoiAlignTensor {
  void* data;    // contiguous; null: an optional tensor that is left out
  int32_t type;  // 0: float32, 1: float64, 2: float16, 3: bfloat16, 4: int64
  int32_t rank;  // at most 4
  int64_t shape[4];
};

struct OrtRoiAlignCall {
  const char* op;   // a name of the domain ort_roialign
  int32_t on_cuda;  // 0: all tensors are in the host's memory
  void* stream;     // the cudaStream_t
  int32_t threads;  // of the CPU
  const OrtRoiAlignAttribute* attributes;
  int64_t num_attributes;
  const OrtRoiAlignTensor* inputs;
  int64_t num_inputs;
  OrtRoiAlignTensor* outputs;
  int64_t num_outputs;
};

// Checks a call and sets types and shapes of its outputs. Returns 0; or 1 where the caller broke the operator's
// contract and 2 for any other failure, with a text in `error`, which ends with a NUL.
int32_t ort_roialign_infer(const OrtRoiAlignCall* call, char* error, size_t error_size);

// Runs a call whose outputs have memory of these types and shapes. Returns as ort_roialign_infer.
int32_t ort_roialign_run(const OrtRoiAlignCall* call, char* error, size_t error_size);

// Tells an operator of another domain, with `call`'s name, attributes and number of inputs, in terms of this library's:
// `json` becomes {"operator": name, "attributes": {name: value}}, where a real has a point, and lives until the same
// thread asks again. Returns as ort_roialign_infer; 1 also where no operator of this library does the same.
int32_t ort_roialign_translate(const char* domain, const OrtRoiAlignCall* call, const char** json, char* error,
                               size_t error_size);
}
