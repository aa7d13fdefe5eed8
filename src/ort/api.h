// A thin layer over ONNX Runtime's C API: version negotiation, ownership, and errors that never cross the C boundary.
//
// The C++ wrappers that come with ONNX Runtime are not used: those of one release crash on runtimes before it.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "ops/error.h"

namespace ort_roialign {

static_assert(ORT_API_VERSION >= 18, "the headers of ONNX Runtime 1.18 or newer are required");

// The oldest runtime that infers the types of variadic operators right.
constexpr uint32_t kOldestApiVersion = 18;

// An OrtStatus on its way to the C boundary.
class StatusError {
 public:
  explicit StatusError(OrtStatus* status) : status_(status) {}
  OrtStatus* status() const { return status_; }

 private:
  OrtStatus* status_;
};

inline void check(OrtStatus* status) {
  if (status != nullptr) throw StatusError(status);
}

// A runtime that this library cannot work with.
class UnsupportedRuntime : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Runs a body and turns whatever it throws into a status.
template <typename Body>
OrtStatus* guarded(const OrtApi& api, Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const StatusError& error) {
    return error.status();
  } catch (const InvalidArgument& error) {
    return api.CreateStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const UnsupportedRuntime& error) {
    return api.CreateStatus(ORT_NOT_IMPLEMENTED, error.what());
  } catch (const std::bad_alloc&) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, "ort_roialign: out of memory");
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, error.what());
  } catch (...) {
    return api.CreateStatus(ORT_RUNTIME_EXCEPTION, "ort_roialign: unknown failure");
  }
}

// Objects of the C API that the caller must release.
template <typename T>
using Owned = std::unique_ptr<T, void(ORT_API_CALL*)(T*)>;

// The API of the running ONNX Runtime, at the newest version that both it and the headers know. A runtime can be older
// or newer than the headers: asking it for more than it knows fails.
struct NegotiatedApi {
  const OrtApi* api;
  uint32_t version;
};

// The newest API version that a runtime of this version has, which for 1.x is x; -1 where the text has another form.
inline int api_version_of(const std::string& version) {
  int major = 0;
  int minor = 0;
  if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) != 2) return -1;
  return major > 1 ? std::numeric_limits<int>::max() : minor;
}

}  // namespace ort_roialign
