// A library of custom operators as another project would have it: those of FOREIGN_DOMAIN, each with float inputs and
// one float output. Only what makes a session load is here, by onnxruntime's stable binary interface, because its
// header is not where tests run: the numbers are places in OrtApi, the struct is the head of OrtCustomOp.

#include <cstddef>
#include <cstdint>

namespace {

constexpr int kCreateDomain = 26, kAddToDomain = 27, kAddDomain = 28;
constexpr int kFloat = 1;

struct Operator {
  uint32_t version = 1;
  void* (*create)(const Operator*, const void*, const void*) = [](const Operator*, const void*, const void*) {
    return static_cast<void*>(nullptr);
  };
  const char* (*name)(const Operator*) = [](const Operator* self) { return self->own_name; };
  const char* (*provider)(const Operator*) = [](const Operator*) { return static_cast<const char*>(nullptr); };
  int (*input_type)(const Operator*, size_t) = [](const Operator*, size_t) { return kFloat; };
  size_t (*input_count)(const Operator*) = [](const Operator* self) { return self->inputs; };
  int (*output_type)(const Operator*, size_t) = [](const Operator*, size_t) { return kFloat; };
  size_t (*output_count)(const Operator*) = [](const Operator*) { return size_t{1}; };
  void (*compute)(void*, void*) = [](void*, void*) {};
  void (*destroy)(void*) = [](void*) {};
  int (*input_is_optional)(const Operator*, size_t) = [](const Operator*, size_t) { return 0; };
  int (*output_is_optional)(const Operator*, size_t) = [](const Operator*, size_t) { return 0; };
  void* newer[14] = {};
  const char* own_name = nullptr;
  size_t inputs = 1;
};

Operator with(const char* name, size_t inputs) {
  Operator made;
  made.own_name = name;
  made.inputs = inputs;
  return made;
}

Operator operators[] = {
    with("Other", 1),
#ifdef WITH_ROI_OPERATOR
    with("MMCVMultiLevelRoiAlign", 4),
#endif
};

}  // namespace

struct ApiBase {
  void* const* (*get)(uint32_t version);
};

extern "C" void* RegisterCustomOps(void* options, const ApiBase* base) {
  void* const* api = base->get(16);
  const auto create = reinterpret_cast<void* (*)(const char*, void**)>(api[kCreateDomain]);
  const auto add = reinterpret_cast<void* (*)(void*, const Operator*)>(api[kAddToDomain]);
  const auto finish = reinterpret_cast<void* (*)(void*, void*)>(api[kAddDomain]);
  void* domain = nullptr;
  if (void* status = create(FOREIGN_DOMAIN, &domain)) return status;
  for (const Operator& each : operators) {
    if (void* status = add(domain, &each)) return status;
  }
  return finish(options, domain);
}
