// The errors that kernels and schemas throw inside the library; src/ort turns them into an OrtStatus.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace ort_roialign {

// Input that breaks an operator's contract. The text names operator, argument, what is required and what was given.
class InvalidArgument : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A failure that is not the caller's: memory, or a CUDA call.
class RuntimeFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Joins its arguments into one text, numbers as `%g` prints them.
template <typename... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

}  // namespace ort_roialign
