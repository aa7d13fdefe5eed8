// The library's entry point: ONNX Runtime calls RegisterCustomOps for each SessionOptions that loads the library.
#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ops/comma_list.h"
#include "ops/foreign_operators.h"
#include "ops/kernel_table.h"
#include "ops/registry.h"
#include "ort/api.h"
#include "ort/custom_op.h"

namespace ort_roialign {
namespace {

constexpr const char* kDomain = "ort_roialign";

// Set on a SessionOptions that has the domain, because adding a domain twice is an error of ONNX Runtime's. The value
// is the path of the library that added it.
constexpr const char* kRegisteredKey = "ort_roialign.registered";

// Names, separated by commas, of further domains: those to register, and those that the SessionOptions has.
constexpr const char* kDomainsKey = "ort_roialign.domains";
constexpr const char* kRegisteredDomainsKey = "ort_roialign.registered_domains";

// The custom operators of a domain as one runtime sees them. A session uses them as long as it lives, so they are never
// freed.
struct Domain {
  OrtCustomOpDomain* handle = nullptr;
  std::vector<std::unique_ptr<CustomOp>> operators;
};

std::unique_ptr<Domain> make_domain(const NegotiatedApi& runtime, const std::string& name,
                                    const std::vector<OperatorEntry>& entries) {
  auto domain = std::make_unique<Domain>();
  check(runtime.api->CreateCustomOpDomain(name.c_str(), &domain->handle));
  const auto add_all = [&](const char* provider, const KernelTable& kernels) {
    for (const OperatorEntry& entry : entries) {
      for (const ElementType map : kMapTypes) {
        for (const ElementType rois : kMapTypes) {
          for (const bool bytes : {false, true}) {
            if (bytes && entry.gives_bytes == nullptr) continue;
            domain->operators.push_back(
                std::make_unique<CustomOp>(runtime, entry, provider, kernels, TypeChoice{map, rois, bytes}));
            check(runtime.api->CustomOpDomain_Add(domain->handle, domain->operators.back().get()));
          }
        }
      }
    }
  };
  add_all(kCpuProvider, cpu_kernels());
  if (const KernelTable* kernels = cuda_kernels()) add_all(kCudaProvider, *kernels);
  return domain;
}

// A process can hold several ONNX Runtimes; each gets operators of its own version. `choice` tells domains of one name
// apart.
OrtCustomOpDomain* domain_of(const NegotiatedApi& runtime, const std::string& choice, const std::string& name,
                             const std::vector<OperatorEntry>& entries) {
  static std::mutex mutex;
  static auto& domains = *new std::map<std::pair<const OrtApi*, std::string>, std::unique_ptr<Domain>>();
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Domain>& domain = domains[{runtime.api, choice}];
  if (domain == nullptr) domain = make_domain(runtime, name, entries);
  return domain->handle;
}

std::optional<std::string> config_entry(const OrtApi& api, const OrtSessionOptions* options, const char* key) {
  int has = 0;
  check(api.HasSessionConfigEntry(options, key, &has));
  if (has == 0) return std::nullopt;
  size_t size = 0;
  check(api.GetSessionConfigEntry(options, key, nullptr, &size));
  std::string value(size, '\0');
  check(api.GetSessionConfigEntry(options, key, value.data(), &size));
  value.resize(size > 0 ? size - 1 : 0);  // without the closing NUL
  return value;
}

// Where the dynamic loader found this library.
std::string library_path() {
  // A name that no other library can stand in for, unlike that of an exported function.
  static const char inside = 0;
  Dl_info info{};
  return dladdr(&inside, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

const ForeignDomain& find_domain(const std::string& choice) {
  std::string known;
  for (const ForeignDomain& domain : foreign_domains()) {
    if (domain.choice == choice) return domain;
    known += text(known.empty() ? "" : ", ", domain.choice);
  }
  throw InvalidArgument(text("ort_roialign: session config entry ", kDomainsKey, " must be names among ", known,
                             ", separated by commas; got \"", choice, "\""));
}

// The further domains that the session asks for and does not have yet.
std::vector<const ForeignDomain*> missing_domains(const OrtApi& api, const OrtSessionOptions* options) {
  const auto choices = [&](const char* key) { return split_at_commas(config_entry(api, options, key).value_or("")); };
  std::map<std::string, std::string> choice_of_name;
  for (const std::string& choice : choices(kRegisteredDomainsKey)) choice_of_name[find_domain(choice).name] = choice;
  std::vector<const ForeignDomain*> missing;
  for (const std::string& choice : choices(kDomainsKey)) {
    const ForeignDomain& domain = find_domain(choice);
    const auto [other, is_new] = choice_of_name.emplace(domain.name, choice);
    if (is_new) {
      missing.push_back(&domain);
    } else if (other->second != choice) {
      throw InvalidArgument(text("ort_roialign: session config entry ", kDomainsKey, " must have one of ",
                                 other->second, " and ", choice, ", which replace the same operators; got both"));
    }
  }
  return missing;
}

// Adds the domain and those asked for beside it, unless this very library has done so before.
void add_domains(const NegotiatedApi& runtime, OrtSessionOptions* options) {
  const OrtApi& api = *runtime.api;
  const std::string path = library_path();
  const auto registered = config_entry(api, options, kRegisteredKey);
  if (registered && *registered != path) {
    throw InvalidArgument(text("ort_roialign: session options must have one library of ort_roialign; they have ",
                               *registered, ", and got ", path));
  }
  const std::vector<const ForeignDomain*> missing = missing_domains(api, options);
  if (!registered) {
    check(api.AddCustomOpDomain(options, domain_of(runtime, kDomain, kDomain, operator_entries())));
    check(api.AddSessionConfigEntry(options, kRegisteredKey, path.c_str()));
  }
  if (missing.empty()) return;
  std::string present = config_entry(api, options, kRegisteredDomainsKey).value_or("");
  for (const ForeignDomain* domain : missing) {
    check(api.AddCustomOpDomain(options, domain_of(runtime, domain->choice, domain->name, domain->entries)));
    present += text(",", domain->choice);
  }
  check(api.AddSessionConfigEntry(options, kRegisteredDomainsKey, present.c_str()));
}

// The API of a runtime that is not too old.
NegotiatedApi negotiate(const OrtApiBase& base) {
  const std::string version = base.GetVersionString();
  const int newest = api_version_of(version);
  if (newest < static_cast<int>(kOldestApiVersion)) {
    throw UnsupportedRuntime(
        text("ort_roialign: ONNX Runtime 1.", kOldestApiVersion, " or newer is required; got ", version));
  }
  const uint32_t api_version = std::min<uint32_t>(newest, ORT_API_VERSION);
  const OrtApi* api = base.GetApi(api_version);
  if (api == nullptr) {
    throw UnsupportedRuntime(text("ort_roialign: ONNX Runtime ", version, " has no API of version ", api_version));
  }
  return {api, api_version};
}

}  // namespace
}  // namespace ort_roialign

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* api_base) {
  using namespace ort_roialign;
  const OrtApi* oldest = api_base->GetApi(1);  // every runtime knows it, and its CreateStatus
  return guarded(*oldest, [&] { add_domains(negotiate(*api_base), options); });
}
