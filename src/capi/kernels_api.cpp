// Calls of the kernels from Python: the same checks and the same kernels as in a session. And what operators of other
// domains are called here.
#include "capi/kernels_api.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "capi/json.h"
#include "capi/thread_team.h"
#include "cpu/settings.h"
#include "ops/error.h"
#include "ops/foreign_operators.h"
#include "ops/kernel_table.h"
#include "ops/registry.h"

namespace ort_roialign {
namespace {

enum AttributeKind { kInteger = 0, kReal = 1, kText = 2, kReals = 3, kIntegers = 4, kOther = 5 };

std::string kind_of(const OrtRoiAlignAttribute& attribute) {
  constexpr const char* kKinds[] = {"an integer", "a float", "a string", "a list of floats", "a list of integers"};
  if (attribute.kind >= kInteger && attribute.kind < kOther) return kKinds[attribute.kind];
  return attribute.text != nullptr ? attribute.text : text("kind ", attribute.kind);
}

class CallAttributes : public AttributeReader {
 public:
  explicit CallAttributes(const OrtRoiAlignCall& call) : call_(call) {}

  // Throws where an attribute is not one of the operator's.
  void check_names(const OperatorEntry& entry) const {
    for (int64_t index = 0; index < call_.num_attributes; ++index) {
      const std::string name = call_.attributes[index].name;
      const auto& known = entry.schema.attributes;
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      std::string names;
      for (const char* each : known) names += text(names.empty() ? "" : ", ", each);
      throw InvalidArgument(text(entry.name, ": attributes must be among ", names, "; got ", name));
    }
  }

  std::optional<int64_t> integer(const char* name) const override {
    const OrtRoiAlignAttribute* found = find(name, kInteger, "an integer");
    return found != nullptr ? std::optional(found->integer) : std::nullopt;
  }

  std::optional<float> real(const char* name) const override {
    const OrtRoiAlignAttribute* found = find(name, kReal, "a float");
    return found != nullptr ? std::optional(found->real) : std::nullopt;
  }

  std::optional<std::string> string(const char* name) const override {
    const OrtRoiAlignAttribute* found = find(name, kText, "a string");
    return found != nullptr ? std::optional<std::string>(found->text) : std::nullopt;
  }

  std::optional<std::vector<float>> reals(const char* name) const override {
    const OrtRoiAlignAttribute* found = find(name, kReals, "a list of floats");
    if (found == nullptr) return std::nullopt;
    return std::vector<float>(found->reals, found->reals + found->num_values);
  }

  std::optional<std::vector<int64_t>> integers(const char* name) const override {
    const OrtRoiAlignAttribute* found = find(name, kIntegers, "a list of integers");
    if (found == nullptr) return std::nullopt;
    return std::vector<int64_t>(found->integers, found->integers + found->num_values);
  }

 private:
  const OrtRoiAlignAttribute* find(const std::string& name, int32_t kind, const char* required) const {
    for (int64_t index = 0; index < call_.num_attributes; ++index) {
      const OrtRoiAlignAttribute& attribute = call_.attributes[index];
      if (attribute.name != name) continue;
      if (attribute.kind == kind) return &attribute;
      throw InvalidArgument(text(call_.op, ": attribute ", name, " must be ", required, "; got ", kind_of(attribute)));
    }
    return nullptr;
  }

  const OrtRoiAlignCall& call_;
};

const OperatorEntry& find_operator(const std::string& domain_name, const std::string& name) {
  for (const ForeignDomain& domain : foreign_domains()) {
    for (const OperatorEntry& entry : domain.entries) {
      if (domain.name == domain_name && entry.name == name && entry.own_attributes) return entry;
    }
  }
  throw InvalidArgument(text("ort_roialign: nothing is known of an operator ", name, " of the domain ", domain_name));
}

template <typename Value>
void add_members(std::string& object, const std::map<std::string, Value>& members) {
  for (const auto& [name, value] : members) {
    object += text(object.empty() ? "" : ", ", quoted(name), ": ", as_json(value));
  }
}

std::string translate(const std::string& domain, const OrtRoiAlignCall& call) {
  const OperatorEntry& entry = find_operator(domain, call.op);
  const CallAttributes attributes(call);
  const OwnAttributes own = entry.own_attributes(attributes, entry.name);
  if (!own.unsaid.empty()) throw InvalidArgument(text(entry.name, ": ", own.unsaid));
  const std::shared_ptr<const void> params = entry.read_params(attributes, entry.name);
  if (entry.check_count) entry.check_count(entry.name, params.get(), static_cast<size_t>(call.num_inputs));
  std::string members;
  add_members(members, own.integers_given);
  add_members(members, own.reals_given);
  add_members(members, own.strings_given);
  add_members(members, own.lists_given);
  return text("{\"operator\": ", quoted(entry.own_name), ", \"attributes\": {", members, "}}");
}

const OperatorEntry& find_operator(const std::string& name) {
  for (const OperatorEntry& entry : operator_entries()) {
    if (entry.name == name) return entry;
  }
  throw InvalidArgument(text("ort_roialign: there is no operator ", name));
}

constexpr int32_t kMostAxes = 4;

// A scalar is there, and has a wrong shape; nothing at all is an optional tensor that is left out.
bool is_present(const OrtRoiAlignTensor& tensor) { return tensor.data != nullptr || tensor.rank > 0; }

int64_t count_elements(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

class HostMemory : public ScratchMemory {
 public:
  void* allocate(size_t bytes) override { return ::operator new(bytes, kAlignment); }
  void release(void* memory) override { ::operator delete(memory, kAlignment); }

 private:
  static constexpr std::align_val_t kAlignment{64};
};

// A call after all checks that need no look at the numbers.
class CheckedCall {
 public:
  explicit CheckedCall(const OrtRoiAlignCall& call) : call_(call), entry_(find_operator(call.op)) {
    const CallAttributes attributes(call);
    attributes.check_names(entry_);
    params_ = entry_.read_params(attributes, entry_.name);
    check_inputs();
    entry_.check_shapes(entry_.name, params_.get(), shapes_);
    types_.bytes = entry_.gives_bytes != nullptr && entry_.gives_bytes(attributes);
    for (size_t index = 0; index < shapes_.size(); ++index) {
      const ElementType type = type_by_rule(spec_of(entry_.schema.inputs, index).type, types_);
      inputs_.push_back({is_absent(shapes_[index]) ? nullptr : call_.inputs[index].data, type, shapes_[index]});
    }
    if (entry_.check_values != nullptr) entry_.check_values(entry_.name, inputs_);
    check_number_of_outputs(entry_.name, entry_.schema, shapes_.size(), static_cast<size_t>(call.num_outputs));
  }

  // What an output must be.
  OrtRoiAlignTensor output(size_t index) const {
    const Shape shape = output_shape(rule_of(entry_.output_shapes(params_.get()), index), inputs_);
    OrtRoiAlignTensor tensor{};
    tensor.type = static_cast<int32_t>(type_by_rule(spec_of(entry_.schema.outputs, index).type, types_));
    tensor.rank = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), tensor.shape);
    return tensor;
  }

  void run() const {
    const KernelTable* kernels = call_.on_cuda != 0 ? cuda_kernels() : &cpu_kernels();
    if (kernels == nullptr) throw RuntimeFailure("ort_roialign: this library was built without CUDA kernels");
    KernelCall kernel_call;
    kernel_call.operator_name = entry_.name;
    kernel_call.params = params_.get();
    kernel_call.inputs = inputs_;
    kernel_call.outputs.resize(most_outputs(entry_.schema, shapes_.size()));
    for (int64_t index = 0; index < call_.num_outputs; ++index) {
      kernel_call.outputs[index] = checked_output(index);
    }
    const size_t type = std::find(kMapTypes.begin(), kMapTypes.end(), types_.map) - kMapTypes.begin();
    const Kernel kernel = (*kernels)[entry_.index][static_cast<size_t>(entry_.direction)][type];
    ThreadTeam team(call_.threads);
    HostMemory scratch;
    const cpu::Settings settings = call_.on_cuda != 0 ? cpu::Settings{} : cpu::read_settings();
    kernel_call.parallel_for = [&](int64_t count, const std::function<void(int64_t)>& task) { team.run(count, task); };
    kernel_call.scratch = &scratch;
    kernel_call.cpu_settings = &settings;
    kernel_call.cuda_stream = call_.stream;
    kernel(kernel_call);
  }

 private:
  // The memory of an output, of its type and shape; none, where that is optional or nothing is to be written.
  OutputTensor checked_output(size_t index) const {
    const OrtRoiAlignTensor expected = output(index);
    const OrtRoiAlignTensor& given = call_.outputs[index];
    const OutputSpec& spec = spec_of(entry_.schema.outputs, index);
    const Shape shape(expected.shape, expected.shape + expected.rank);
    if (given.data == nullptr) {
      if (spec.presence != Presence::kRequired || count_elements(shape) == 0) return {nullptr, shape};
      throw InvalidArgument(
          text(entry_.name, ": ", spec.name, " must have memory for shape ", to_text(shape), "; got none"));
    }
    if (given.type != expected.type || given.rank != expected.rank ||
        !std::equal(shape.begin(), shape.end(), given.shape)) {
      const int32_t rank = std::clamp(given.rank, 0, kMostAxes);
      throw InvalidArgument(text(entry_.name, ": ", spec.name, " must have type ", expected.type, " and shape ",
                                 to_text(shape), "; got type ", given.type, " and shape ",
                                 to_text(Shape(given.shape, given.shape + rank))));
    }
    return {given.data, shape};
  }

  void check_inputs() {
    const std::vector<InputSpec>& specs = entry_.schema.inputs;
    const size_t given = static_cast<size_t>(call_.num_inputs);
    const bool variadic = specs.back().presence == Presence::kVariadic;
    if (given > specs.size() && !variadic) {
      throw InvalidArgument(text(entry_.name, ": there must be at most ", specs.size(), " inputs; got ", given));
    }
    for (size_t index = 0; index < std::max(given, specs.size()); ++index) {
      const InputSpec& spec = spec_of(specs, index);
      if (index < given && is_present(call_.inputs[index])) {
        take_input(spec, call_.inputs[index]);
      } else if (spec.presence == Presence::kOptional) {
        shapes_.push_back(absent_shape());
      } else {
        throw InvalidArgument(text(entry_.name, ": ", spec.name, " must have shape ", spec.shape, "; got none"));
      }
    }
    check_types(entry_, types_);
  }

  void take_input(const InputSpec& spec, const OrtRoiAlignTensor& tensor) {
    if (tensor.rank < 0 || tensor.rank > kMostAxes || tensor.type < 0 ||
        tensor.type > static_cast<int32_t>(ElementType::kInt64)) {
      throw InvalidArgument(text(entry_.name, ": ", spec.name, " must have 0 to ", kMostAxes,
                                 " axes and a type of 0 to 4; got ", tensor.rank, " axes and type ", tensor.type));
    }
    const Shape shape(tensor.shape, tensor.shape + tensor.rank);
    const bool negative = std::any_of(shape.begin(), shape.end(), [](int64_t size) { return size < 0; });
    if (negative || (tensor.data == nullptr && count_elements(shape) > 0)) {
      throw InvalidArgument(text(entry_.name, ": ", spec.name, " must have memory for its shape; got ", to_text(shape),
                                 tensor.data == nullptr ? " without memory" : ""));
    }
    shapes_.push_back(shape);
    check_type(spec, static_cast<ElementType>(tensor.type));
  }

  void check_type(const InputSpec& spec, ElementType type) {
    const bool is_integer = type == ElementType::kInt64;
    if ((spec.type == TypeRule::kInt64 || spec.type == TypeRule::kHostInt64) != is_integer) {
      throw InvalidArgument(text(entry_.name, ": ", spec.name, " must be of type ",
                                 is_integer ? "float32, float64, float16 or bfloat16" : "int64", "; got ",
                                 type_name(type)));
    }
    if (spec.type == TypeRule::kMapOrFloat32) types_.rois = type;
    if (spec.type != TypeRule::kMap) return;
    if (has_map_type_ && type != types_.map) {
      throw InvalidArgument(text(entry_.name, ": ", spec.name, " must be of type ", type_name(types_.map),
                                 ", as the inputs before it; got ", type_name(type)));
    }
    types_.map = type;
    has_map_type_ = true;
  }

  const OrtRoiAlignCall& call_;
  const OperatorEntry& entry_;
  std::shared_ptr<const void> params_;
  std::vector<Shape> shapes_;        // of the inputs
  std::vector<InputTensor> inputs_;  // once they are checked
  TypeChoice types_{ElementType::kFloat32, ElementType::kFloat32};
  bool has_map_type_ = false;
};

template <typename Body>
int32_t guarded(char* error, size_t error_size, Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const InvalidArgument& failure) {
    std::snprintf(error, error_size, "%s", failure.what());
    return 1;
  } catch (const std::bad_alloc&) {
    std::snprintf(error, error_size, "ort_roialign: out of memory");
  } catch (const std::exception& failure) {
    std::snprintf(error, error_size, "%s", failure.what());
  } catch (...) {
    std::snprintf(error, error_size, "ort_roialign: unknown failure");
  }
  return 2;
}

}  // namespace
}  // namespace ort_roialign

extern "C" __attribute__((visibility("default"))) int32_t ort_roialign_infer(const OrtRoiAlignCall* call, char* error,
                                                                             size_t error_size) {
  using namespace ort_roialign;
  return guarded(error, error_size, [&] {
    const CheckedCall checked(*call);
    for (int64_t index = 0; index < call->num_outputs; ++index) {
      void* const data = call->outputs[index].data;
      call->outputs[index] = checked.output(index);
      call->outputs[index].data = data;
    }
  });
}

extern "C" __attribute__((visibility("default"))) int32_t ort_roialign_run(const OrtRoiAlignCall* call, char* error,
                                                                           size_t error_size) {
  using namespace ort_roialign;
  return guarded(error, error_size, [&] { CheckedCall(*call).run(); });
}

extern "C" __attribute__((visibility("default"))) int32_t ort_roialign_translate(const char* domain,
                                                                                 const OrtRoiAlignCall* call,
                                                                                 const char** json, char* error,
                                                                                 size_t error_size) {
  using namespace ort_roialign;
  return guarded(error, error_size, [&] {
    static thread_local std::string answer;
    answer = translate(domain, *call);
    *json = answer.c_str();
  });
}
