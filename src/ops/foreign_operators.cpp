// How operators of other domains are told to this library's kernels. Sources: ONNX RoiAlign-10, -16 and -22,
// MaxRoiPool-1 and -22; mmcv's symbolics (mmcv/ops) and mmdeploy's operators (csrc/mmdeploy/backend_ops).
#include "ops/foreign_operators.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "ops/op_list.h"
#include "ops/own_attributes.h"

namespace ort_roialign {
namespace {

constexpr const char* kSides[] = {"output_height", "output_width"};
constexpr const char* kStrides = "featmap_strides";

using ReadOwn = OwnAttributes (*)(const AttributeReader& theirs, const std::string& op);

template <typename Op>
std::shared_ptr<const void> shared_params(typename Op::Params params) {
  return std::make_shared<const typename Op::Params>(std::move(params));
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

OwnAttributes mmcv_roi_align(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = sampling_attributes(theirs, op);
  read_scale(own, theirs, op);
  own.strings_given["mode"] = read_is_first_choice(theirs, op, "mode", "avg", "max") ? "avg" : "max";
  return own;
}

OwnAttributes mmcv_roi_align_rotated(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = sampling_attributes(theirs, op);
  read_scale(own, theirs, op);
  own.integers_given["clockwise"] = read_flag(theirs, op, "clockwise", 0);
  return own;
}

OwnAttributes mmcv_pr_roi_pool(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own;
  read_sides(own, theirs, op, "pooled_height", "pooled_width");
  read_scale(own, theirs, op);
  return own;
}

// It has no `aligned`: RoIs are always moved by half a cell. Its sampling_ratio is a float.
OwnAttributes mmcv_deform_roi_pool(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own;
  read_sides(own, theirs, op, "pooled_height", "pooled_width");
  read_scale(own, theirs, op);
  own.reals_given["gamma"] = read_finite(theirs, op, "gamma", 0.1f);
  const float samples = read_finite(theirs, op, "sampling_ratio", 0);
  constexpr float kMost = 1 << 24;  // up to which every integer is a float
  if (samples < 0 || samples > kMost || samples != std::floor(samples)) {
    throw InvalidArgument(
        text(op, ": attribute sampling_ratio must be a whole number from 0 to ", kMost, "; got ", samples));
  }
  own.integers_given["sampling_ratio"] = static_cast<int64_t>(samples);
  return own;
}

// The pyramid's levels are counted from 0: that of boxes smaller than twice finest_scale.
OwnAttributes pyramid_attributes(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = sampling_attributes(theirs, op);
  std::vector<float> scales = theirs.reals(kStrides).value_or(std::vector<float>{});
  for (float& scale : scales) {
    const float stride = std::exchange(scale, 1 / scale);
    if (std::isfinite(scale) && scale > 0) continue;
    throw InvalidArgument(
        text(op, ": attribute ", kStrides, " must be finite and greater than 0, and so must 1 / stride; got ", stride));
  }
  if (scales.empty() || scales.size() > kMostLevels) {
    throw InvalidArgument(text(op, ": attribute ", kStrides, " must have one number for each map, 1 to ", kMostLevels,
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

OwnAttributes mmcv_multi_level_roi_align(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = pyramid_attributes(theirs, op);
  own.strings_given["mode"] = read_flag(theirs, op, "pool_mode", 1) ? "avg" : "max";
  return own;
}

OwnAttributes mmcv_multi_level_rotated_roi_align(const AttributeReader& theirs, const std::string& op) {
  OwnAttributes own = pyramid_attributes(theirs, op);
  own.integers_given["clockwise"] = read_flag(theirs, op, "clockwise", 0);
  if (read_flag(theirs, op, "aligned", 1)) {
    own.unsaid =
        "with aligned=1 it moves boxes by half a cell and yet makes them at least one cell wide and high, which no "
        "operator of ort_roialign does; it runs as it is in a session with the domain mmdeploy";
  }
  return own;
}

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

OwnAttributes onnx_max_roi_pool(const AttributeReader& theirs, const std::string& op) {
  const std::vector<int64_t> sides = theirs.integers("pooled_shape").value_or(std::vector<int64_t>{});
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const auto fits = [](int64_t side) { return side >= 1 && side <= kMost; };
  if (sides.size() != 2 || !fits(sides[0]) || !fits(sides[1])) {
    throw InvalidArgument(
        text(op, ": attribute pooled_shape must be height and width of 1 to ", kMost, "; got ", to_text(sides)));
  }
  OwnAttributes own;
  for (int side = 0; side < 2; ++side) own.integers_given[kSides[side]] = sides[side];
  read_scale(own, theirs, op);
  return own;
}

const OperatorEntry& own_operator(const std::string& name) {
  const std::vector<OperatorEntry>& entries = operator_entries();
  return *std::find_if(entries.begin(), entries.end(), [&](const OperatorEntry& entry) { return entry.name == name; });
}

// An operator without batch_indices: the image's number stands in front of each row of rois.
OperatorEntry image_in_rois(const char* name, const OperatorEntry& own, std::vector<const char*> attributes) {
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
  entry.own_name = own.name;
  entry.left_out_input = left_out;
  entry.empty_is_absent = true;
  entry.schema.attributes = std::move(attributes);
  entry.schema.inputs.erase(entry.schema.inputs.begin() + left_out);
  const int columns = std::string(entry.schema.inputs[rois_place].shape) == "[num_rois, 4]" ? 5 : 6;
  entry.schema.inputs[rois_place].shape = columns == 5 ? "[num_rois, 5]" : "[num_rois, 6]";
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

template <typename Op>
OperatorEntry translated(const char* name, std::vector<const char*> attributes, ReadOwn own_attributes) {
  OperatorEntry entry = image_in_rois(name, own_operator(Op::kName), std::move(attributes));
  entry.own_attributes = own_attributes;
  entry.read_params = [own_attributes](const AttributeReader& theirs, const std::string& op) {
    return shared_params<Op>(Op::read_params(own_attributes(theirs, op), op));
  };
  return entry;
}

// On a pyramid the maps are as many as the strides, and an error must not speak of spatial_scales.
template <typename Op>
OperatorEntry translated_pyramid(const char* name, std::vector<const char*> attributes, ReadOwn own_attributes) {
  OperatorEntry entry = translated<Op>(name, std::move(attributes), own_attributes);
  entry.check_count = [](const std::string& op, const void* params, size_t num_inputs) {
    const LevelParams& levels = static_cast<const typename Op::Params*>(params)->levels;
    check_number_of_maps(op, levels, static_cast<int64_t>(num_inputs) - 1, kStrides);
  };
  entry.check_shapes = [check_count = entry.check_count, check_shapes = entry.check_shapes](
                           const std::string& op, const void* params, const std::vector<Shape>& inputs) {
    check_count(op, params, inputs.size());
    check_shapes(op, params, inputs);
  };
  return entry;
}

OperatorEntry roi_align_rotated() {
  return translated<RoiAlignRotated>(
      "MMCVRoIAlignRotated",
      {"output_height", "output_width", "spatial_scale", "sampling_ratio", "aligned", "clockwise"},
      mmcv_roi_align_rotated);
}

OperatorEntry multi_level_rotated_roi_align() {
  using Op = MultiScaleRoiAlignRotated;
  OperatorEntry entry = translated_pyramid<Op>("MMCVMultiLevelRotatedRoiAlign",
                                               {"output_height", "output_width", "clockwise", "sampling_ratio",
                                                "roi_scale_factor", "finest_scale", kStrides, "aligned"},
                                               mmcv_multi_level_rotated_roi_align);
  entry.read_params = [](const AttributeReader& theirs, const std::string& op) {
    Op::Params params = Op::read_params(mmcv_multi_level_rotated_roi_align(theirs, op), op);
    params.at_least_one_cell = true;  // whatever `aligned` says
    return shared_params<Op>(params);
  };
  return entry;
}

std::vector<OperatorEntry> mmcv_operators() {
  return {translated<RoiAlign>("MMCVRoiAlign",
                               {"output_height", "output_width", "spatial_scale", "sampling_ratio", "mode", "aligned"},
                               mmcv_roi_align),
          roi_align_rotated(),
          translated<PrRoiPool>("PrRoIPool", {"pooled_height", "pooled_width", "spatial_scale"}, mmcv_pr_roi_pool),
          translated<DeformRoiPool>("MMCVDeformRoIPool",
                                    {"pooled_height", "pooled_width", "spatial_scale", "sampling_ratio", "gamma"},
                                    mmcv_deform_roi_pool)};
}

std::vector<OperatorEntry> mmdeploy_operators() {
  return {roi_align_rotated(),
          translated_pyramid<MultiScaleRoiAlign>("MMCVMultiLevelRoiAlign",
                                                 {"output_height", "output_width", "pool_mode", "sampling_ratio",
                                                  "roi_scale_factor", "finest_scale", kStrides, "aligned"},
                                                 mmcv_multi_level_roi_align),
          multi_level_rotated_roi_align()};
}

// RoiAlign as ONNX has had it since opset 16: this library's attributes, too.
OperatorEntry onnx_roi_align(int first_version) {
  OperatorEntry entry = own_operator(RoiAlign::kName);
  entry.first_version = first_version;
  return entry;
}

OperatorEntry onnx_roi_align_10() {
  OperatorEntry entry = onnx_roi_align(10);
  entry.read_params = [](const AttributeReader& theirs, const std::string& op) {
    return shared_params<RoiAlign>(RoiAlign::read_params(AttributesOfRoiAlign10(theirs), op));
  };
  return entry;
}

OperatorEntry max_roi_pool(int first_version) {
  OperatorEntry entry = translated<RoiPool>("MaxRoiPool", {"pooled_shape", "spatial_scale"}, onnx_max_roi_pool);
  entry.first_version = first_version;
  return entry;
}

}  // namespace

const std::vector<ForeignDomain>& foreign_domains() {
  // Never destroyed, as the entries of registry.h. ONNX Runtime's CPU provider lacks opset 22. It makes one operator of
  // all that have a name: of RoiAlign, which means another thing from opset 16 on where coordinate_transformation_mode
  // is absent, a session can have but one.
  static const auto& domains = *new std::vector<ForeignDomain>{{"onnx", "", {onnx_roi_align(22), max_roi_pool(22)}},
                                                               {"onnx-all", "", {onnx_roi_align(16), max_roi_pool(1)}},
                                                               {"onnx-10", "", {onnx_roi_align_10(), max_roi_pool(1)}},
                                                               {"mmcv", "mmcv", mmcv_operators()},
                                                               {"mmdeploy", "mmdeploy", mmdeploy_operators()}};
  return domains;
}

}  // namespace ort_roialign
