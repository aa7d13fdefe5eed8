// JSON for Python, written by hand: it is little.
#pragma once

#include <limits>
#include <locale>
#include <sstream>
#include <string>
#include <vector>

namespace ort_roialign {

// What would break the JSON gives way to question marks: only errors and paths can hold it.
inline std::string printable(const std::string& value) {
  std::string safe;
  for (const char letter : value) {
    const bool plain = letter >= ' ' && letter <= '~' && letter != '"' && letter != '\\';
    safe += plain ? letter : '?';
  }
  return safe;
}

inline std::string quoted(const std::string& value) { return "\"" + printable(value) + "\""; }

// A finite number with a point, which tells it from an integer, and with all digits: Python reads the very same value.
inline std::string as_json(float value) {
  std::ostringstream stream;
  stream.imbue(std::locale::classic());
  stream.precision(std::numeric_limits<double>::max_digits10);
  stream << std::showpoint << static_cast<double>(value);
  return stream.str();
}
inline std::string as_json(int64_t value) { return std::to_string(value); }
inline std::string as_json(const std::string& value) { return quoted(value); }

template <typename Value>
std::string as_json(const std::vector<Value>& values) {
  std::string joined;
  for (const Value& value : values) joined += (joined.empty() ? "" : ", ") + as_json(value);
  return "[" + joined + "]";
}

}  // namespace ort_roialign
