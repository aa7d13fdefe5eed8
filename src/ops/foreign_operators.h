// Operators of other domains that this library's kernels can stand in for, where a session asks for them.
#pragma once

#include <string>
#include <vector>

#include "ops/registry.h"

namespace ort_roialign {

struct ForeignDomain {
  std::string choice;  // as a session names it
  std::string name;    // as models do
  std::vector<OperatorEntry> entries;
};

const std::vector<ForeignDomain>& foreign_domains();

}  // namespace ort_roialign
