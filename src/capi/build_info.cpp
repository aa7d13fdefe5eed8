// Facts about this build as JSON, for `ort-roialign info` and for Python.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <string>
#include <vector>

#include "capi/json.h"
#include "cpu/settings.h"
#include "ops/comma_list.h"
#include "ops/error.h"
#include "ops/foreign_operators.h"
#include "ops/kernel_table.h"
#include "ops/registry.h"
#include "ort/custom_op.h"

namespace ort_roialign {
namespace {

std::vector<std::string> cpu_features() {
  std::vector<std::string> features;
#if defined(__x86_64__) || defined(__i386__)
  const auto add = [&](bool supported, const char* name) {
    if (supported) features.push_back(name);
  };
  add(__builtin_cpu_supports("sse4.2"), "sse4.2");
  add(__builtin_cpu_supports("avx"), "avx");
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("fma"), "fma");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  add(__builtin_cpu_supports("avx512bw"), "avx512bw");
  add(__builtin_cpu_supports("avx512dq"), "avx512dq");
  add(__builtin_cpu_supports("avx512vl"), "avx512vl");
#elif defined(__aarch64__)
  features.push_back("neon");
#endif
  return features;
}

std::string describe(const OperatorEntry& entry) {
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<std::string> attributes(entry.schema.attributes.begin(), entry.schema.attributes.end());
  for (const InputSpec& input : entry.schema.inputs) inputs.push_back(input.name);
  for (const OutputSpec& output : entry.schema.outputs) outputs.push_back(output.name);
  std::vector<std::string> types;
  for (const ElementType type : kMapTypes) types.push_back(type_name(type));
  std::vector<std::string> providers = {kCpuProvider};
  if (cuda_kernels() != nullptr) providers.push_back(kCudaProvider);
  return text("{\"name\": ", quoted(entry.name), ", \"types\": ", as_json(types),
              ", \"providers\": ", as_json(providers), ", \"inputs\": ", as_json(inputs),
              ", \"outputs\": ", as_json(outputs), ", \"attributes\": ", as_json(attributes), "}");
}

std::string describe(const ForeignDomain& domain) {
  std::string operators;
  for (const OperatorEntry& entry : domain.entries) {
    operators += text(operators.empty() ? "" : ", ", "{\"name\": ", quoted(entry.name),
                      ", \"since_version\": ", entry.first_version,
                      ", \"translated\": ", entry.own_attributes ? "true" : "false", "}");
  }
  return text("{\"name\": ", quoted(domain.choice), ", \"domain\": ", quoted(domain.name), ", \"operators\": [",
              operators, "]}");
}

std::string describe_build() {
  std::string operators;
  for (const OperatorEntry& entry : operator_entries()) operators += (operators.empty() ? "" : ", ") + describe(entry);
  std::string domains;
  for (const ForeignDomain& domain : foreign_domains()) domains += (domains.empty() ? "" : ", ") + describe(domain);
  return text("{\"version\": ", quoted(ORT_ROIALIGN_VERSION), ", \"ort_api_version\": ", ORT_API_VERSION,
              ", \"cpu_features\": ", as_json(cpu_features()), ", \"cpu_isas\": ", as_json(cpu::isa_names()),
              ", \"cuda\": ", cuda_kernels() != nullptr ? "true" : "false",
              ", \"cuda_version\": ", quoted(ORT_ROIALIGN_CUDA_VERSION),
              ", \"cuda_architectures\": ", as_json(split_at_commas(ORT_ROIALIGN_CUDA_ARCHITECTURES)),
              ", \"operators\": [", operators, "], \"domains\": [", domains, "]}");
}

std::string describe_cpu_state() {
  std::string chosen;
  try {
    const cpu::Settings settings = cpu::read_settings();
    chosen = text("\"isa\": ", quoted(cpu::all_isas()[settings.isa].kernels->name),
                  ", \"path\": ", settings.path ? quoted(cpu::path_name(*settings.path)) : "null");
  } catch (const InvalidArgument& error) {
    chosen = text("\"error\": ", quoted(error.what()));
  }
  return text("{", chosen, ", \"calls\": ", cpu::calls_as_json(), "}");
}

}  // namespace
}  // namespace ort_roialign

// UTF-8 JSON with a closing NUL, which the library owns; null where memory is short.
extern "C" __attribute__((visibility("default"))) const char* ort_roialign_build_info() {
  try {
    static const std::string kInfo = ort_roialign::describe_build();
    return kInfo.c_str();
  } catch (...) {
    return nullptr;
  }
}

// What a session created now would run on the CPU, and how many calls have run what, as JSON; the text lives until the
// same thread asks again.
extern "C" __attribute__((visibility("default"))) const char* ort_roialign_cpu_state() {
  try {
    static thread_local std::string state;
    state = ort_roialign::describe_cpu_state();
    return state.c_str();
  } catch (...) {
    return nullptr;
  }
}
