// PasteMasks: the masks of RoIs, resampled into the image that they were found in (He et al. 2017, Mask R-CNN, section
// 3; to the pixel as torchvision's paste_masks_in_image).
#pragma once

#include <cstdint>
#include <string>

#include "ops/kernel_table.h"
#include "ops/registry.h"
#include "semantics/element_types.h"
#include "semantics/host_device.h"
#include "semantics/pasted_mask.h"

namespace ort_roialign {

struct PasteMasksParams {
  int32_t padding;  // cells of zeros around a mask
  bool has_threshold;
  float threshold;
};

// One call as the kernels see it: plain data, so that it can be passed to a CUDA kernel by value.
template <typename T>
struct PasteProblem {
  using Real = ComputeType<T>;

  PasteMasksParams params;
  const T* masks;     // [num_masks, 1, mask_height, mask_width]
  const void* boxes;  // [num_masks, 4], of type T or float32
  bool boxes_are_float32;
  int64_t num_masks;
  int32_t mask_height;
  int32_t mask_width;
  int64_t height;  // of the image
  int64_t width;

  ORT_ROIALIGN_HD Real coordinate(int64_t mask, int number) const {
    const int64_t index = mask * 4 + number;
    if (boxes_are_float32) return static_cast<Real>(static_cast<const float*>(boxes)[index]);
    return widen(static_cast<const T*>(boxes)[index]);
  }

  ORT_ROIALIGN_HD bool is_finite(int64_t mask) const {
    for (int number = 0; number < 4; ++number) {
      const Real value = coordinate(mask, number);
      if (!(value - value == 0)) return false;
    }
    return true;
  }

  // Only where the box is finite.
  ORT_ROIALIGN_HD PastedAxis<Real> y_axis(int64_t mask) const {
    return lay_pasted_axis(coordinate(mask, 1), coordinate(mask, 3), mask_height, mask_width, params.padding);
  }
  ORT_ROIALIGN_HD PastedAxis<Real> x_axis(int64_t mask) const {
    return lay_pasted_axis(coordinate(mask, 0), coordinate(mask, 2), mask_width, mask_width, params.padding);
  }

  // A cell of a row of a mask, both numbered with the frame.
  ORT_ROIALIGN_HD Real framed_cell(int64_t mask, int32_t row, int32_t column) const {
    row -= params.padding;
    column -= params.padding;
    if (row < 0 || row >= mask_height || column < 0 || column >= mask_width) return 0;
    return widen(masks[(mask * mask_height + row) * mask_width + column]);
  }

  // What is written for a value: that, or whether it reaches the threshold.
  ORT_ROIALIGN_HD void store(Real value, T* output) const { *output = narrow<T>(value); }
  ORT_ROIALIGN_HD void store(Real value, uint8_t* output) const {
    *output = value >= static_cast<Real>(params.threshold) ? 1 : 0;
  }
};

template <typename T>
PasteProblem<T> make_paste_problem(const KernelCall& call) {
  const InputTensor& masks = call.inputs[0];
  const InputTensor& boxes = call.inputs[1];
  PasteProblem<T> problem{};
  problem.params = *static_cast<const PasteMasksParams*>(call.params);
  problem.masks = static_cast<const T*>(masks.data);
  problem.boxes = boxes.data;
  problem.boxes_are_float32 = boxes.type == ElementType::kFloat32;
  problem.num_masks = masks.shape[0];
  problem.mask_height = static_cast<int32_t>(masks.shape[2]);
  problem.mask_width = static_cast<int32_t>(masks.shape[3]);
  problem.height = call.outputs[0].shape[2];
  problem.width = call.outputs[0].shape[3];
  return problem;
}

// The operator as src/ort and src/capi know it; it has no gradient.
OperatorEntry paste_masks_entry(size_t index);

}  // namespace ort_roialign
