// A node's attributes: for a kernel that is being created, and while shapes are inferred.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ops/schema.h"
#include "ort/api.h"

namespace ort_roialign {

// A status that says no more than that something is absent.
inline bool succeeds(const OrtApi& api, OrtStatus* status) {
  if (status == nullptr) return true;
  api.ReleaseStatus(status);
  return false;
}

class NodeAttributes : public AttributeReader {
 public:
  NodeAttributes(const OrtApi& api, const OrtKernelInfo* info, std::string op)
      : api_(api), info_(info), op_(std::move(op)) {}

  std::optional<int64_t> integer(const char* name) const override {
    if (const auto value = find_integer(name)) return value;
    refuse_other_type(name, "an integer");
    return std::nullopt;
  }

  std::optional<float> real(const char* name) const override {
    if (const auto value = find_real(name)) return value;
    refuse_other_type(name, "a float");
    return std::nullopt;
  }

  std::optional<std::string> string(const char* name) const override {
    if (const auto value = find_string(name)) return value;
    refuse_other_type(name, "a string");
    return std::nullopt;
  }

  std::optional<std::vector<float>> reals(const char* name) const override {
    size_t size = 0;
    if (!succeeds(api_, api_.KernelInfoGetAttributeArray_float(info_, name, nullptr, &size))) {
      size = 0;
    }
    if (size == 0) {  // also what ONNX Runtime says of a list of another type
      refuse_other_type(name, "a list of floats");
      return std::nullopt;
    }
    std::vector<float> values(size);
    check(api_.KernelInfoGetAttributeArray_float(info_, name, values.data(), &size));
    return values;
  }

  std::optional<std::vector<int64_t>> integers(const char* name) const override {
    size_t size = 0;
    if (!succeeds(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size))) size = 0;
    if (size == 0) {
      refuse_other_type(name, "a list of integers");
      return std::nullopt;
    }
    std::vector<int64_t> values(size);
    check(api_.KernelInfoGetAttributeArray_int64(info_, name, values.data(), &size));
    return values;
  }

 private:
  std::optional<int64_t> find_integer(const char* name) const {
    int64_t value = 0;
    if (!succeeds(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value))) return std::nullopt;
    return value;
  }

  std::optional<float> find_real(const char* name) const {
    float value = 0;
    if (!succeeds(api_, api_.KernelInfoGetAttribute_float(info_, name, &value))) return std::nullopt;
    return value;
  }

  std::optional<std::string> find_string(const char* name) const {
    size_t size = 0;
    if (!succeeds(api_, api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size))) return std::nullopt;
    std::string value(size, '\0');
    check(api_.KernelInfoGetAttribute_string(info_, name, value.data(), &size));
    value.resize(size > 0 ? size - 1 : 0);  // without the closing NUL
    return value;
  }

  // True also for a single value, and of a list of any type: that of another one counts as empty.
  bool is_list(const char* name) const {
    size_t size = 0;
    return succeeds(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size)) ||
           succeeds(api_, api_.KernelInfoGetAttributeArray_float(info_, name, nullptr, &size));
  }

  // ONNX Runtime reports an attribute of another type as it does an absent one; a default in its place would be a
  // silent mistake.
  void refuse_other_type(const char* name, const char* required) const {
    std::string given;
    if (const auto value = find_integer(name)) given = text("the integer ", *value);
    if (const auto value = find_real(name)) given = text("the float ", *value);
    if (const auto value = find_string(name)) given = text("the string \"", *value, "\"");
    if (given.empty() && is_list(name)) given = "a list";
    if (!given.empty()) throw InvalidArgument(text(op_, ": attribute ", name, " must be ", required, "; got ", given));
  }

  const OrtApi& api_;
  const OrtKernelInfo* info_;
  std::string op_;
};

class InferenceAttributes : public AttributeReader {
 public:
  InferenceAttributes(const OrtApi& api, const OrtShapeInferContext* context) : api_(api), context_(context) {}

  std::optional<int64_t> integer(const char* name) const override {
    int64_t value = 0;
    return read(name, ORT_OP_ATTR_INT, &value, sizeof(value)) ? std::optional(value) : std::nullopt;
  }

  std::optional<float> real(const char* name) const override {
    float value = 0;
    return read(name, ORT_OP_ATTR_FLOAT, &value, sizeof(value)) ? std::optional(value) : std::nullopt;
  }

  std::optional<std::string> string(const char* name) const override {
    char value[64] = {};  // longer than any allowed value
    return read(name, ORT_OP_ATTR_STRING, value, sizeof(value) - 1) ? std::optional<std::string>(value) : std::nullopt;
  }

  std::optional<std::vector<float>> reals(const char* name) const override {
    float values[64] = {};  // more than any operator takes
    size_t bytes = 0;
    if (!read(name, ORT_OP_ATTR_FLOATS, values, sizeof(values), &bytes)) return std::nullopt;
    return std::vector<float>(values, values + bytes / sizeof(float));
  }

  std::optional<std::vector<int64_t>> integers(const char* name) const override {
    int64_t values[64] = {};  // likewise
    size_t bytes = 0;
    if (!read(name, ORT_OP_ATTR_INTS, values, sizeof(values), &bytes)) return std::nullopt;
    return std::vector<int64_t>(values, values + bytes / sizeof(int64_t));
  }

 private:
  bool read(const char* name, OrtOpAttrType type, void* value, size_t size, size_t* written = nullptr) const {
    const OrtOpAttr* attribute = nullptr;
    if (!succeeds(api_, api_.ShapeInferContext_GetAttribute(context_, name, &attribute)) || attribute == nullptr) {
      return false;
    }
    size_t used = 0;
    return succeeds(api_, api_.ReadOpAttr(attribute, type, value, size, written != nullptr ? written : &used));
  }

  const OrtApi& api_;
  const OrtShapeInferContext* context_;
};

}  // namespace ort_roialign
