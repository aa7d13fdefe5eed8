// One call as the engines see it: plain data, so that it can be passed to a CUDA kernel by value.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ops/kernel_table.h"
#include "ops/roi_family.h"
#include "semantics/element_types.h"
#include "semantics/host_device.h"

namespace ort_roialign {

ORT_ROIALIGN_HD inline int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// What is wrong with a RoI, if anything.
enum class RoiFault { kNone, kBatchIndex, kCoordinate };

template <typename T>
struct FeatureMap {
  const T* data;  // [num_images, map_channels, height, width]
  int32_t height;
  int32_t width;

  ORT_ROIALIGN_HD int64_t plane_size() const { return static_cast<int64_t>(height) * width; }
};

struct BinPlace {
  int32_t y;
  int32_t x;
};

template <typename Op, typename T>
struct Problem {
  using Real = ComputeType<T>;
  using RoiBox = typename Op::template RoiBox<Real>;
  static constexpr int kColumns = RoiBox::kColumns;

  // A RoI on the map that it is pooled from.
  struct Region : Op::template Region<T> {
    int32_t map_number;
  };

  typename Op::Params params;
  FeatureMap<T> maps[Op::kMostMaps];
  int32_t num_maps;
  const void* rois;  // [num_rois, roi_columns], of type T or float32
  bool rois_are_float32;
  int32_t roi_columns;           // kColumns, or one more with the image's number in front
  const int64_t* batch_indices;  // [num_rois], or null where rois have the images' numbers
  const T* offset;               // [num_rois, 2, output_height, output_width], or null
  int64_t num_images;
  int64_t channels;  // of the output
  int64_t num_rois;

  ORT_ROIALIGN_HD int64_t bins() const { return static_cast<int64_t>(params.output_height) * params.output_width; }

  ORT_ROIALIGN_HD BinPlace bin_place(int64_t bin) const {
    return {static_cast<int32_t>(bin / params.output_width), static_cast<int32_t>(bin % params.output_width)};
  }

  // Channels of a map for each one of the output.
  ORT_ROIALIGN_HD int64_t channels_per_channel() const { return Op::kChannelPerBin ? bins() : 1; }
  ORT_ROIALIGN_HD int64_t map_channels() const { return channels * channels_per_channel(); }

  ORT_ROIALIGN_HD const FeatureMap<T>& map(int32_t number) const {
    return maps[Op::kMostMaps == 1 ? 0 : number];  // a constant keeps a CUDA kernel's parameters out of local memory
  }

  // Where the plane of one channel of one image of a map begins, in elements.
  ORT_ROIALIGN_HD int64_t plane_offset(const FeatureMap<T>& map, int64_t image, int64_t map_channel) const {
    return (image * map_channels() + map_channel) * map.plane_size();
  }

  // The image that a RoI without a fault lies in.
  ORT_ROIALIGN_HD int64_t image(int64_t roi) const {
    return batch_indices != nullptr ? batch_indices[roi] : static_cast<int64_t>(roi_number(roi * roi_columns));
  }

  // One image of one map, of which a RoI is pooled: their number among all.
  ORT_ROIALIGN_HD int64_t page(int64_t roi, const Region& region) const {
    return region.map_number * num_images + image(roi);
  }

  // The channel of the map that a bin of a channel of the output reads.
  ORT_ROIALIGN_HD int64_t map_channel(int64_t channel, int32_t bin_y, int32_t bin_x) const {
    if constexpr (!Op::kChannelPerBin) return channel;
    return (channel * params.output_height + bin_y) * params.output_width + bin_x;
  }

  // Where one bin of one RoI's channel lies in Y, in elements.
  ORT_ROIALIGN_HD int64_t bin_offset(int64_t roi, int64_t channel, int32_t bin_y, int32_t bin_x) const {
    return ((roi * channels + channel) * params.output_height + bin_y) * params.output_width + bin_x;
  }

  ORT_ROIALIGN_HD Real coordinate(int64_t roi, int column) const {
    return roi_number((roi + 1) * roi_columns - kColumns + column);
  }

  ORT_ROIALIGN_HD Real roi_number(int64_t index) const {
    if (rois_are_float32) return static_cast<Real>(static_cast<const float*>(rois)[index]);
    return widen(static_cast<const T*>(rois)[index]);
  }

  // Writes one number of a gradient of the RoIs, which is of their type.
  ORT_ROIALIGN_HD void store_like_rois(void* gradient, int64_t index, Real value) const {
    if (rois_are_float32) {
      static_cast<float*>(gradient)[index] = static_cast<float>(value);
    } else {
      static_cast<T*>(gradient)[index] = narrow<T>(value);
    }
  }

  ORT_ROIALIGN_HD bool has_image(int64_t roi) const {
    if (batch_indices != nullptr) return batch_indices[roi] >= 0 && batch_indices[roi] < num_images;
    const Real number = roi_number(roi * roi_columns);
    return number > -1 && number < static_cast<Real>(num_images);  // it is cut to an integer; false for NaN
  }

  ORT_ROIALIGN_HD RoiFault fault(int64_t roi) const {
    if (!has_image(roi)) return RoiFault::kBatchIndex;
    for (int column = 0; column < kColumns; ++column) {
      const Real value = coordinate(roi, column);
      if (!(value - value == 0)) return RoiFault::kCoordinate;  // NaN or infinite
    }
    return RoiFault::kNone;
  }

  // Only where there is no fault.
  ORT_ROIALIGN_HD Region region(int64_t roi) const {
    RoiRow<T, kColumns> row{};
    for (int column = 0; column < kColumns; ++column) row.values[column] = coordinate(roi, column);
    if (offset != nullptr) row.offset = offset + roi * 2 * bins();
    const int32_t number = Op::map_number(params, RoiBox::of(row.values));
    const MapSize size{map(number).height, map(number).width};
    return {Op::template locate<T>(params, row, number, size), number};
  }

  // The value of a sample on a plane.
  template <typename SampleType>
  ORT_ROIALIGN_HD static Real interpolate(const SampleType& sample, const T* plane) {
    Real value = 0;
    if (!sample.inside) return value;
    for (int cell = 0; cell < SampleType::kCells; ++cell)
      value += sample.weight[cell] * widen(plane[sample.offset[cell]]);
    return value;
  }
};

// The reduction of operators that leave a choice; an average, or the only one, for the others.
template <typename Op, typename T>
ORT_ROIALIGN_HD bool is_maximum(const Problem<Op, T>& problem) {
  if constexpr (Op::kHasAverage && Op::kHasMaximum) return problem.params.reduction == Reduction::kMaximum;
  return Op::kHasMaximum;
}

// The inputs of a forward call start at `first_input`; a backward call has dY before them.
template <typename Op, typename T>
Problem<Op, T> make_problem(const KernelCall& call, int first_input) {
  constexpr InputPlaces kPlaces = Op::kInputs;
  const InputTensor& rois = call.inputs[first_input + kPlaces.rois];
  Problem<Op, T> problem{};
  problem.params = *static_cast<const typename Op::Params*>(call.params);
  problem.num_maps = Op::kMostMaps == 1 ? 1 : static_cast<int32_t>(call.inputs.size() - first_input - kPlaces.map);
  for (int32_t number = 0; number < problem.num_maps; ++number) {
    const InputTensor& map = call.inputs[first_input + kPlaces.map + number];
    problem.maps[number] = {static_cast<const T*>(map.data), static_cast<int32_t>(map.shape[2]),
                            static_cast<int32_t>(map.shape[3])};
  }
  const Shape& shape = call.inputs[first_input + kPlaces.map].shape;
  problem.num_images = shape[0];
  problem.channels = shape[1] / problem.channels_per_channel();
  problem.rois = rois.data;
  problem.rois_are_float32 = rois.type == ElementType::kFloat32;
  const InputTensor& batch_indices = call.inputs[first_input + kPlaces.batch_indices];
  problem.batch_indices = static_cast<const int64_t*>(batch_indices.data);
  problem.roi_columns = problem.kColumns + (is_absent(batch_indices.shape) ? 1 : 0);
  if constexpr (kPlaces.offset >= 0) {
    problem.offset = static_cast<const T*>(call.inputs[first_input + kPlaces.offset].data);
  }
  problem.num_rois = rois.shape[0];
  return problem;
}

}  // namespace ort_roialign
