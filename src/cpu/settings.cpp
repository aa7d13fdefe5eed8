// Reads the environment and the processor's features.
#include "cpu/settings.h"

#include <array>
#include <atomic>
#include <cstdlib>

#include "ops/error.h"

namespace ort_roialign::cpu {

extern const IsaKernels kBaselineKernels;
#ifdef ORT_ROIALIGN_X86_KERNELS
extern const IsaKernels kAvx2Kernels;
extern const IsaKernels kAvx512Kernels;
#endif

namespace {

constexpr std::array<const char*, kPaths> kPathNames = {"plain", "direct", "packed"};
// Calls by instruction set and path.
std::vector<std::atomic<int64_t>>& calls() {
  static auto& counts = *new std::vector<std::atomic<int64_t>>(all_isas().size() * kPaths);
  return counts;
}

template <typename Names>
std::string joined(const Names& names) {
  std::string list;
  for (const auto& name : names) list += (list.empty() ? "" : ", ") + std::string(name);
  return list;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

int choose_isa() {
  const std::vector<Isa>& isas = all_isas();
  const std::string forced = environment("ORT_ROIALIGN_FORCE_ISA");
  int best = 0;  // the last one that runs here, as they are ordered
  for (int index = 0; index < static_cast<int>(isas.size()); ++index) {
    if (!isas[index].runs_here) continue;
    best = index;
    if (forced == isas[index].kernels->name) return index;
  }
  if (forced.empty()) return best;
  throw InvalidArgument(text("ort_roialign: environment variable ORT_ROIALIGN_FORCE_ISA must be one of ",
                             joined(isa_names()), ", which this build and this processor have; got ", forced));
}

std::optional<Path> choose_path() {
  const std::string forced = environment("ORT_ROIALIGN_FORCE_PATH");
  if (forced.empty()) return std::nullopt;
  for (int index = 0; index < kPaths; ++index) {
    if (forced == kPathNames[index]) return static_cast<Path>(index);
  }
  throw InvalidArgument(text("ort_roialign: environment variable ORT_ROIALIGN_FORCE_PATH must be one of ",
                             joined(kPathNames), "; got ", forced));
}

}  // namespace

const std::vector<Isa>& all_isas() {
#ifdef ORT_ROIALIGN_X86_KERNELS
  // F16C, which not every compiler's function knows, came to all processors before AVX2 did.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
  // Never destroyed, as sessions may outlive static objects.
  static const auto& isas = *new std::vector<Isa>{
      {&kBaselineKernels, true},
#ifdef ORT_ROIALIGN_X86_KERNELS
      {&kAvx2Kernels, avx2},
      {&kAvx512Kernels, avx512},
#endif
  };
  return isas;
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const Isa& isa : all_isas()) {
    if (isa.runs_here) names.push_back(isa.kernels->name);
  }
  return names;
}

const char* path_name(Path path) { return kPathNames[static_cast<int>(path)]; }

Settings read_settings() { return {choose_isa(), choose_path()}; }

void count_call(int isa, Path path) {
  calls()[isa * kPaths + static_cast<int>(path)].fetch_add(1, std::memory_order_relaxed);
}

std::string calls_as_json() {
  std::string json;
  for (size_t isa = 0; isa < all_isas().size(); ++isa) {
    std::string paths;
    for (int path = 0; path < kPaths; ++path) {
      paths += text(path == 0 ? "" : ", ", "\"", kPathNames[path], "\": ", calls()[isa * kPaths + path].load());
    }
    json += text(isa == 0 ? "" : ", ", "\"", all_isas()[isa].kernels->name, "\": {", paths, "}");
  }
  return "{" + json + "}";
}

}  // namespace ort_roialign::cpu
