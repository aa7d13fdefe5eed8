// Attributes by this library's names, made out of those that an operator of another domain has.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ops/schema.h"

namespace ort_roialign {

class OwnAttributes : public AttributeReader {
 public:
  std::map<std::string, int64_t> integers_given;
  std::map<std::string, float> reals_given;
  std::map<std::string, std::string> strings_given;
  std::map<std::string, std::vector<float>> lists_given;

  // What the operator does beyond these attributes, so that the library's own one cannot take its place; else empty.
  std::string unsaid;

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

}  // namespace ort_roialign
