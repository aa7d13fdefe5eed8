// One call as the engines see it: plain data, so that it can be passed to a CUDA kernel by value.
#pragma once

#include <cstdint>

#include "ops/kernel_table.h"
#include "ops/roi_family.h"
#include "semantics/element_types.h"
#include "semantics/host_device.h"

namespace ort_roialign {

ORT_ROIALIGN_HD inline int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// What is wrong with a RoI, if anything.
enum class RoiFault { kNone, kBatchIndex, kCoordinate };

template <typename Op, typename T>
struct Problem {
  using Real = ComputeType<T>;
  using Region = typename Op::template Region<Real>;
  using RoiBox = Box<Real>;

  typename Op::Params params;
  const T* map;      // [num_images, channels, height, width]
  const void* rois;  // [num_rois, 4], of type T or float32
  bool rois_are_float32;
  const int64_t* batch_indices;  // [num_rois]
  int64_t num_images;
  int64_t channels;
  int64_t num_rois;
  int32_t height;
  int32_t width;

  ORT_ROIALIGN_HD int64_t plane_size() const { return static_cast<int64_t>(height) * width; }
  ORT_ROIALIGN_HD int64_t bins() const { return static_cast<int64_t>(params.output_height) * params.output_width; }

  // Where the plane of one channel of one image begins, in elements.
  ORT_ROIALIGN_HD int64_t plane_offset(int64_t image, int64_t channel) const {
    return (image * channels + channel) * plane_size();
  }

  // Where one bin of one RoI's channel lies in Y, in elements.
  ORT_ROIALIGN_HD int64_t bin_offset(int64_t roi, int64_t channel, int32_t bin_y, int32_t bin_x) const {
    return ((roi * channels + channel) * params.output_height + bin_y) * params.output_width + bin_x;
  }

  ORT_ROIALIGN_HD Real coordinate(int64_t roi, int column) const {
    const int64_t index = roi * RoiBox::kColumns + column;
    if (rois_are_float32) return static_cast<Real>(static_cast<const float*>(rois)[index]);
    return widen(static_cast<const T*>(rois)[index]);
  }

  ORT_ROIALIGN_HD RoiFault fault(int64_t roi) const {
    if (batch_indices[roi] < 0 || batch_indices[roi] >= num_images) return RoiFault::kBatchIndex;
    for (int column = 0; column < RoiBox::kColumns; ++column) {
      const Real value = coordinate(roi, column);
      if (!(value - value == 0)) return RoiFault::kCoordinate;  // NaN or infinite
    }
    return RoiFault::kNone;
  }

  ORT_ROIALIGN_HD Region region(int64_t roi) const {
    const RoiBox box{coordinate(roi, 0), coordinate(roi, 1), coordinate(roi, 2), coordinate(roi, 3)};
    return Op::locate(params, box, height, width);
  }

  // The value of a sample on a plane.
  ORT_ROIALIGN_HD static Real interpolate(const typename Region::SampleType& sample, const T* plane) {
    Real value = 0;
    if (!sample.inside) return value;
    for (int cell = 0; cell < Region::kCellsPerSample; ++cell) {
      value += sample.weight[cell] * widen(plane[sample.offset[cell]]);
    }
    return value;
  }
};

// The inputs of a forward call start at `first_input`; a backward call has dY before them.
template <typename Op, typename T>
Problem<Op, T> make_problem(const KernelCall& call, int first_input) {
  const InputTensor& map = call.inputs[first_input + kMap];
  const InputTensor& rois = call.inputs[first_input + kRois];
  Problem<Op, T> problem{};
  problem.params = *static_cast<const typename Op::Params*>(call.params);
  problem.map = static_cast<const T*>(map.data);
  problem.rois = rois.data;
  problem.rois_are_float32 = rois.type == ElementType::kFloat32;
  problem.batch_indices = static_cast<const int64_t*>(call.inputs[first_input + kBatchIndices].data);
  problem.num_images = map.shape[0];
  problem.channels = map.shape[1];
  problem.height = static_cast<int32_t>(map.shape[2]);
  problem.width = static_cast<int32_t>(map.shape[3]);
  problem.num_rois = rois.shape[0];
  return problem;
}

}  // namespace ort_roialign
