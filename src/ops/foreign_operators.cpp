// How operators of other domains are told to this library's kernels. Sources: ONNX RoiAlign-10, -16 and -22,
// MaxRoiPool-1 and -22; mmcv's symbolics (mmcv/ops) and mmdeploy's operators (csrc/mmdeploy/backend_ops).
#include "ops/foreign_operators.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>

#include "ops/op_list.h"

namespace ort_roialign {
namespace {

constexpr const char* kSides[] = {"output_height", "output_width"};

// Attributes by this library's names.
class OwnAttributes : public AttributeReader {
 public:
  std::map<std::string, int64_t> integers_given;
  std::map<std::string, float> reals_given;
  std::map<std::string, std::string> strings_given;
  std::map<std::string, std::vector<float>> lists_given;

  std::optional<int64_t> integer(const char* name) const override { return find(integers_given, name); }
  std::optional<float> real(const char* name) const override { return find(reals_given, name); }
  std::optional<std::string> string(const char* name) const override { return find(strings_given, name); }
  std::optional<std::vector<float>> reals(const char* name) const override { return find(lists_given, name); }
  std::optional<std::vector<int64_t>> integers(const char*) const override { return std::nullopt; }

 private:
  template <typename Value>
  static std::optional<Value> find(const std::map<std::string, Value>& given, const char* name) {
    const auto found = given.find(name);
    return found != given.end() ? std::optional(found->second) : std::nullopt;
  }
};

using Params = std::shared_ptr<const void>;

template <typename Op>
Params own_params(const AttributeReader& attributes, const std::string& op) {
  return std::make_shared<const typename Op::Params>(Op::read_params(attributes, op));
}

void read_sides(OwnAttributes& own, const AttributeReader& theirs, const std::string& op, const char* height,
                const char* width) {
  own.integers_given[kSides[0]] = read_integer(theirs, op, height, 1, 1);
  own.integers_given[kSides[1]] = read_integer(theirs, op, width, 1, 1);
}

bool read_flag(const AttributeReader& theirs, const std::string& op, const char* name, int64_t default_value) {
  return read_integer(theirs, op, name, default_value, 0, 1) == 1;
}

void read_aligned(OwnAttributes& own, const AttributeReader& theirs, const std::string& op) {
  const bool aligned = read_flag(theirs, op, "aligned", 1);
  own.strings_given["coordinate_transformation_mode"] = aligned ? "half_pixel" : "output_half_pixel";
}

// What mmcv's and mmdeploy's operators that sample have in common.
OwnAttributes sampling_attributes(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own;
  read_sides(own, theirs, op, kSides[0], kSides[1]);
  own.integers_given["sampling_ratio"] = read_integer(theirs, op, "sampling_ratio", 0, 0);
  read_aligned(own, theirs, op);
  return own;
}

void read_scale(OwnAttributes& own, const AttributeReader& theirs, const std::string& op) {
  own.reals_given["spatial_scale"] = read_spatial_scale(theirs, op);
}

Params mmcv_roi_align(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = sampling_attributes(theirs, op);
  read_scale(own, theirs, op);
  own.strings_given["mode"] = read_is_first_choice(theirs, op, "mode", "avg", "max") ? "avg" : "max";
  return own_params<RoiAlign>(own, op);
}

Params mmcv_roi_align_rotated(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = sampling_attributes(theirs, op);
  read_scale(own, theirs, op);
  own.integers_given["clockwise"] = read_flag(theirs, op, "clockwise", 0);
  return own_params<RoiAlignRotated>(own, op);
}

Params mmcv_pr_roi_pool(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own;
  read_sides(own, theirs, op, "pooled_height", "pooled_width");
  read_scale(own, theirs, op);
  return own_params<PrRoiPool>(own, op);
}

// It has no `aligned`: RoIs are always moved by half a cell. Its sampling_ratio is a float.
Params mmcv_deform_roi_pool(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own;
  read_sides(own, theirs, op, kSides[0], kSides[1]);
  read_scale(own, theirs, op);
  own.reals_given["gamma"] = read_finite(theirs, op, "gamma", 0.1f);
  const float samples = read_finite(theirs, op, "sampling_ratio", 0);
  constexpr float kMost = 1 << 24;  // up to which every integer is a float
  if (samples < 0 || samples > kMost || samples != std::floor(samples)) {
    throw InvalidArgument(
        text(op, ": attribute sampling_ratio must be a whole number from 0 to ", kMost, "; got ", samples));
  }
  own.integers_given["sampling_ratio"] = static_cast<int64_t>(samples);
  return own_params<DeformRoiPool>(own, op);
}

// The pyramid's levels are counted from 0: that of boxes smaller than twice finest_scale.
OwnAttributes pyramid_attributes(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = sampling_attributes(theirs, op);
  std::vector<float> scales = theirs.reals("featmap_strides").value_or(std::vector<float>{});
  for (float& stride : scales) {
    if (!std::isfinite(stride) || stride <= 0) {
      throw InvalidArgument(text(op, ": attribute featmap_strides must be finite and greater than 0; got ", stride));
    }
    stride = 1 / stride;
  }
  if (scales.empty() || scales.size() > kMostLevels) {
    throw InvalidArgument(text(op, ": attribute featmap_strides must have one number for each map, 1 to ", kMostLevels,
                               " in all; got ", scales.size()));
  }
  const float factor = read_finite(theirs, op, "roi_scale_factor", 1);
  if (factor > 0 && factor != 1) {
    throw InvalidArgument(
        text(op, ": attribute roi_scale_factor must be 1, or 0 or less, for boxes pooled as they are; got ", factor));
  }
  own.integers_given["min_level"] = 0;
  own.integers_given["max_level"] = static_cast<int64_t>(scales.size()) - 1;
  own.integers_given["canonical_level"] = 0;
  own.reals_given["canonical_scale"] = static_cast<float>(read_integer(theirs, op, "finest_scale", 56, 1));
  own.reals_given["log_epsilon"] = 1e-6f;
  own.reals_given["level_epsilon"] = 0;
  own.lists_given["spatial_scales"] = std::move(scales);
  return own;
}

Params mmcv_multi_level_roi_align(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = pyramid_attributes(theirs, op);
  own.strings_given["mode"] = read_flag(theirs, op, "pool_mode", 1) ? "avg" : "max";
  return own_params<MultiScaleRoiAlign>(own, op);
}

Params mmcv_multi_level_rotated_roi_align(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = pyramid_attributes(theirs, op);
  own.integers_given["clockwise"] = read_flag(theirs, op, "clockwise", 0);
  auto params = MultiScaleRoiAlignRotated::read_params(own, op);
  params.at_least_one_cell = true;  // whatever `aligned` says
  return std::make_shared<const MultiScaleRoiAlignRotated::Params>(params);
}

Params onnx_roi_align(const AttributeReader& theirs, const std::string& op) { return own_params<RoiAlign>(theirs, op); }

// Before opset 16 there was no coordinate_transformation_mode: coordinates were as its "output_half_pixel" has them.
class AttributesOfRoiAlign10 : public AttributeReader {
 public:
  explicit AttributesOfRoiAlign10(const AttributeReader& theirs) : theirs_(theirs) {}

  std::optional<int64_t> integer(const char* name) const override { return theirs_.integer(name); }
  std::optional<float> real(const char* name) const override { return theirs_.real(name); }
  std::optional<std::vector<float>> reals(const char* name) const override { return theirs_.reals(name); }
  std::optional<std::vector<int64_t>> integers(const char* name) const override { return theirs_.integers(name); }
  std::optional<std::string> string(const char* name) const override {
    const std::optional<std::string> value = theirs_.string(name);
    if (!value && std::string(name) == "coordinate_transformation_mode") return "output_half_pixel";
    return value;
  }

 private:
  const AttributeReader& theirs_;
};

Params onnx_roi_align_10(const AttributeReader& theirs, const std::string& op) {
  return own_params<RoiAlign>(AttributesOfRoiAlign10(theirs), op);
}

Params onnx_max_roi_pool(const AttributeReader& theirs, const std::string& op) {
  const std::vector<int64_t> sides = theirs.integers("pooled_shape").value_or(std::vector<int64_t>{});
  if (sides.size() != 2) {
    throw InvalidArgument(
        text(op, ": attribute pooled_shape must be height and width; got ", sides.size(), " numbers"));
  }
  OwnAttributes own;
  for (int side = 0; side < 2; ++side) {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    if (sides[side] < 1 || sides[side] > kMost) {
      throw InvalidArgument(
          text(op, ": attribute pooled_shape must be height and width of 1 to ", kMost, "; got ", to_text(sides)));
    }
    own.integers_given[kSides[side]] = sides[side];
  }
  read_scale(own, theirs, op);
  return own_params<RoiPool>(own, op);
}

const OperatorEntry& own_operator(const std::string& name) {
  const std::vector<OperatorEntry>& entries = operator_entries();
  return *std::find_if(entries.begin(), entries.end(), [&](const OperatorEntry& entry) { return entry.name == name; });
}

using ReadParams = Params (*)(const AttributeReader&, const std::string&);

// An operator with the inputs of one of this library's.
OperatorEntry same_inputs(const char* name, const char* own_name, ReadParams read_params, int first_version) {
  OperatorEntry entry = own_operator(own_name);
  entry.name = name;
  entry.read_params = read_params;
  entry.first_version = first_version;
  return entry;
}

// An operator without batch_indices: the image's number stands in front of each row of rois.
OperatorEntry image_in_rois(const char* name, const char* own_name, std::vector<const char*> attributes,
                            ReadParams read_params, int first_version = 1) {
  const OperatorEntry own = own_operator(own_name);
  const auto place_of = [&](const char* input) {
    const auto& inputs = own.schema.inputs;
    return static_cast<int>(std::find_if(inputs.begin(), inputs.end(),
                                         [&](const InputSpec& spec) { return std::string(spec.name) == input; }) -
                            inputs.begin());
  };
  const int rois_place = place_of("rois");
  const int left_out = place_of("batch_indices");
  OperatorEntry entry = own;
  entry.name = name;
  entry.first_version = first_version;
  entry.left_out_input = left_out;
  entry.schema.attributes = std::move(attributes);
  entry.schema.inputs.erase(entry.schema.inputs.begin() + left_out);
  const int columns = std::string(entry.schema.inputs[rois_place].shape) == "[num_rois, 4]" ? 5 : 6;
  entry.schema.inputs[rois_place].shape = columns == 5 ? "[num_rois, 5]" : "[num_rois, 6]";
  entry.read_params = read_params;
  entry.output_shapes = [own, left_out](const void* params) {
    std::vector<ShapeRule> rules = own.output_shapes(params);
    for (ShapeRule& rule : rules) {
      for (DimensionRule& dimension : rule) {
        if (dimension.input > left_out) --dimension.input;
      }
    }
    return rules;
  };
  entry.check_shapes = [own, rois_place, left_out, columns](const std::string& op, const void* params,
                                                            const std::vector<Shape>& inputs) {
    std::vector<Shape> shapes = inputs;
    Shape& rois = shapes[rois_place];
    if (rois.size() != 2 || rois[1] != columns) {
      throw InvalidArgument(
          text(op, ": rois must have shape [num_rois, ", columns, "], the image's number first; got ", to_text(rois)));
    }
    --rois[1];
    const Shape batch_indices{rois[0]};
    shapes.insert(shapes.begin() + left_out, batch_indices);
    own.check_shapes(op, params, shapes);
  };
  return entry;
}

std::vector<OperatorEntry> mmcv_operators() {
  return {image_in_rois("MMCVRoiAlign", RoiAlign::kName,
                        {"output_height", "output_width", "spatial_scale", "sampling_ratio", "mode", "aligned"},
                        mmcv_roi_align),
          image_in_rois("PrRoIPool", PrRoiPool::kName, {"pooled_height", "pooled_width", "spatial_scale"},
                        mmcv_pr_roi_pool),
          image_in_rois("MMCVDeformRoIPool", DeformRoiPool::kName,
                        {"output_height", "output_width", "spatial_scale", "sampling_ratio", "gamma"},
                        mmcv_deform_roi_pool)};
}

std::vector<OperatorEntry> mmdeploy_operators() {
  return {image_in_rois("MMCVRoIAlignRotated", RoiAlignRotated::kName,
                        {"output_height", "output_width", "spatial_scale", "sampling_ratio", "aligned", "clockwise"},
                        mmcv_roi_align_rotated),
          image_in_rois("MMCVMultiLevelRoiAlign", MultiScaleRoiAlign::kName,
                        {"output_height", "output_width", "pool_mode", "sampling_ratio", "roi_scale_factor",
                         "finest_scale", "featmap_strides", "aligned"},
                        mmcv_multi_level_roi_align),
          image_in_rois("MMCVMultiLevelRotatedRoiAlign", MultiScaleRoiAlignRotated::kName,
                        {"output_height", "output_width", "clockwise", "sampling_ratio", "roi_scale_factor",
                         "finest_scale", "featmap_strides", "aligned"},
                        mmcv_multi_level_rotated_roi_align)};
}

// What onnxruntime's CPU provider lacks of the standard domain.
std::vector<OperatorEntry> onnx_22_operators() {
  return {same_inputs("RoiAlign", RoiAlign::kName, onnx_roi_align, 22),
          image_in_rois("MaxRoiPool", RoiPool::kName, {"pooled_shape", "spatial_scale"}, onnx_max_roi_pool, 22)};
}

// ONNX Runtime makes one operator of all that have a name: of RoiAlign, which means another thing from opset 16 on
// where coordinate_transformation_mode is absent, a session can have but one.
std::vector<OperatorEntry> all_onnx_operators(const OperatorEntry& roi_align) {
  return {roi_align, image_in_rois("MaxRoiPool", RoiPool::kName, {"pooled_shape", "spatial_scale"}, onnx_max_roi_pool)};
}

}  // namespace

const std::vector<ForeignDomain>& foreign_domains() {
  // Never destroyed, as the entries of registry.h.
  static const auto& domains = *new std::vector<ForeignDomain>{
      {"onnx", "", onnx_22_operators()},
      {"onnx-all", "", all_onnx_operators(same_inputs("RoiAlign", RoiAlign::kName, onnx_roi_align, 16))},
      {"onnx-10", "", all_onnx_operators(same_inputs("RoiAlign", RoiAlign::kName, onnx_roi_align_10, 10))},
      {"mmcv", "mmcv", mmcv_operators()},
      {"mmdeploy", "mmdeploy", mmdeploy_operators()}};
  return domains;
}

}  // namespace ort_roialign
