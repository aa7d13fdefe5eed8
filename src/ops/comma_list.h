// Lists of names in one text.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace ort_roialign {

// What stands between commas, without spaces around it; nothing for what is empty.
inline std::vector<std::string> split_at_commas(const std::string& list) {
  std::vector<std::string> names;
  for (size_t begin = 0; begin < list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const size_t first = std::min(list.find_first_not_of(' ', begin), end);
    if (first < end) names.push_back(list.substr(first, list.find_last_not_of(' ', end - 1) + 1 - first));
    begin = end + 1;
  }
  return names;
}

}  // namespace ort_roialign
