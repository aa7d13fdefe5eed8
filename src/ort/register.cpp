// The library's entry point: ONNX Runtime calls RegisterCustomOps for each SessionOptions that loads the library.
#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/registry.h"
#include "ort/api.h"
#include "ort/custom_op.h"

namespace ort_roialign {
namespace {

constexpr const char* kDomain = "ort_roialign";

// Set on a SessionOptions that has the domain, because adding a domain twice is an error of ONNX Runtime's.
constexpr const char* kRegisteredKey = "ort_roialign.registered";

// Names, separated by commas, of further domains to register. None exist yet.
constexpr const char* kDomainsKey = "ort_roialign.domains";

// The custom operators as one runtime sees them. A session uses them as long as it lives, so they are never freed.
struct Domain {
  OrtCustomOpDomain* handle = nullptr;
  std::vector<std::unique_ptr<CustomOp>> operators;
};

std::unique_ptr<Domain> make_domain(const NegotiatedApi& runtime) {
  auto domain = std::make_unique<Domain>();
  check(runtime.api->CreateCustomOpDomain(kDomain, &domain->handle));
  const auto add_all = [&](const char* provider, const KernelTable& kernels) {
    for (const OperatorEntry& entry : operator_entries()) {
      for (const ElementType map : kMapTypes) {
        for (const ElementType rois : kMapTypes) {
          domain->operators.push_back(
              std::make_unique<CustomOp>(runtime, entry, provider, kernels, TypeChoice{map, rois}));
          check(runtime.api->CustomOpDomain_Add(domain->handle, domain->operators.back().get()));
        }
      }
    }
  };
  add_all(kCpuProvider, cpu_kernels());
  if (const KernelTable* kernels = cuda_kernels()) add_all(kCudaProvider, *kernels);
  return domain;
}

// A process can hold several ONNX Runtimes; each gets operators of its own version.
OrtCustomOpDomain* domain_of(const NegotiatedApi& runtime) {
  static std::mutex mutex;
  static auto& domains = *new std::map<const OrtApi*, std::unique_ptr<Domain>>();
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Domain>& domain = domains[runtime.api];
  if (domain == nullptr) domain = make_domain(runtime);
  return domain->handle;
}

bool has_entry(const OrtApi& api, const OrtSessionOptions* options, const char* key) {
  int has = 0;
  check(api.HasSessionConfigEntry(options, key, &has));
  return has != 0;
}

void refuse_unknown_domains(const OrtApi& api, const OrtSessionOptions* options) {
  if (!has_entry(api, options, kDomainsKey)) return;
  size_t size = 0;
  check(api.GetSessionConfigEntry(options, kDomainsKey, nullptr, &size));
  std::string names(size, '\0');
  check(api.GetSessionConfigEntry(options, kDomainsKey, names.data(), &size));
  names.resize(size > 0 ? size - 1 : 0);  // without the closing NUL
  if (names.find_first_not_of(", ") != std::string::npos) {
    throw InvalidArgument(text("ort_roialign: session config entry ", kDomainsKey,
                               " must be empty, as this version has no further domains; got \"", names, "\""));
  }
}

}  // namespace
}  // namespace ort_roialign

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* api_base) {
  using namespace ort_roialign;
  const std::string version = api_base->GetVersionString();
  const int newest = api_version_of(version);
  if (newest < static_cast<int>(kOldestApiVersion)) {
    const OrtApi* oldest = api_base->GetApi(1);  // every runtime knows it, and its CreateStatus
    return oldest->CreateStatus(
        ORT_NOT_IMPLEMENTED,
        text("ort_roialign: ONNX Runtime 1.", kOldestApiVersion, " or newer is required; got ", version).c_str());
  }
  const uint32_t api_version = std::min<uint32_t>(newest, ORT_API_VERSION);
  const NegotiatedApi runtime{api_base->GetApi(api_version), api_version};
  return guarded(*runtime.api, [&] {
    if (has_entry(*runtime.api, options, kRegisteredKey)) return;
    refuse_unknown_domains(*runtime.api, options);
    check(runtime.api->AddCustomOpDomain(options, domain_of(runtime)));
    check(runtime.api->AddSessionConfigEntry(options, kRegisteredKey, "1"));
  });
}
