// What PasteMasks declares: inputs, outputs and attributes.
#include "ops/paste_masks.h"

#include <memory>
#include <vector>

namespace ort_roialign {
namespace {

std::shared_ptr<const void> read_params(const AttributeReader& attributes, const std::string& op) {
  constexpr int64_t kMostPadding = int64_t{1} << 20;
  PasteMasksParams params{};
  params.padding = read_integer(attributes, op, "padding", 1, 0, kMostPadding);
  params.has_threshold = attributes.real("threshold").has_value();
  params.threshold = read_finite(attributes, op, "threshold", 0);
  return std::make_shared<const PasteMasksParams>(params);
}

std::vector<ShapeRule> output_shapes(const void*) {
  return {{same_as(0, 0), exactly(1), value_of(2, 0), value_of(2, 1)}};
}

void check_shapes(const std::string& op, const void*, const std::vector<Shape>& inputs) {
  const Shape& masks = inputs[0];
  const Shape& boxes = inputs[1];
  const Shape& image_size = inputs[2];
  constexpr int64_t kLargestAxis = int64_t{1} << 20;
  if (masks.size() != 4 || masks[1] != 1) {
    throw InvalidArgument(text(op, ": masks must have shape [num_masks, 1, height, width]; got ", to_text(masks)));
  }
  if (masks[2] < 1 || masks[3] < 1 || masks[2] > kLargestAxis || masks[3] > kLargestAxis) {
    throw InvalidArgument(
        text(op, ": masks must have height and width of 1 to ", kLargestAxis, "; got ", to_text(masks)));
  }
  if (boxes.size() != 2 || boxes[0] != masks[0] || boxes[1] != 4) {
    throw InvalidArgument(
        text(op, ": boxes must have shape [num_masks, 4] = [", masks[0], ", 4]; got ", to_text(boxes)));
  }
  if (image_size.size() != 1 || image_size[0] != 2) {
    throw InvalidArgument(text(op, ": image_size must have shape [2], height and width; got ", to_text(image_size)));
  }
}

void check_values(const std::string& op, const std::vector<InputTensor>& inputs) {
  const int64_t* size = static_cast<const int64_t*>(inputs[2].data);
  constexpr int64_t kLargestAxis = int64_t{1} << 30;
  if (size[0] < 0 || size[1] < 0 || size[0] > kLargestAxis || size[1] > kLargestAxis) {
    throw InvalidArgument(text(op, ": image_size must be height and width of 0 to ", kLargestAxis, "; got ",
                               to_text({size[0], size[1]})));
  }
}

}  // namespace

OperatorEntry paste_masks_entry(size_t index) {
  OperatorEntry entry;
  entry.name = "PasteMasks";
  entry.index = index;
  entry.direction = Direction::kForward;
  entry.schema = {{{"masks", TypeRule::kMap, "[num_masks, 1, height, width]"},
                   {"boxes", TypeRule::kMapOrFloat32, "[num_masks, 4]"},
                   {"image_size", TypeRule::kHostInt64, "[2]"}},
                  {{"Y", TypeRule::kMapOrBytes}},
                  {"padding", "threshold"}};
  entry.read_params = read_params;
  entry.output_shapes = output_shapes;
  entry.check_shapes = check_shapes;
  entry.check_values = check_values;
  entry.gives_bytes = [](const AttributeReader& attributes) { return attributes.real("threshold").has_value(); };
  return entry;
}

}  // namespace ort_roialign
