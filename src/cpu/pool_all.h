// All RoIs of a forward call, in portions that the tables of taps have room for.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/pooled_forward.h"
#include "cpu/roi_order.h"
#include "cpu/roi_plans.h"
#include "cpu/settings.h"

namespace ort_roialign::cpu {

// Pools all RoIs but those beyond the kernels' limits, and returns the numbers of these.
template <typename Op, typename T>
std::vector<int64_t> pool_all(const KernelCall& call, const Problem<Op, T>& problem,
                              const typename Problem<Op, T>::Region* regions) {
  constexpr int64_t kMostTaps = int64_t{1} << 19;  // 8 MB in float32
  ScratchArray<RoiTurn> turns(*call.scratch, problem.num_rois);
  put_in_order<Op, T>(problem, regions, turns);
  ScratchArray<RoiBound> bounds(*call.scratch, problem.num_rois);
  ScratchArray<int64_t> chosen(*call.scratch, problem.num_rois);
  std::vector<int64_t> others;
  std::array<bool, kPaths> ran{};
  const auto leave = [&](int64_t roi) { others.push_back(roi); };
  for (int64_t next = 0; next < problem.num_rois;) {
    int64_t count = 0;
    double taps = 0;
    for (; next < problem.num_rois; ++next) {
      const int64_t roi = turns[next].roi;
      bounds[roi] = RoiPlans<Op, T>::bound(problem, regions[roi]);
      const double more = bounds[roi].taps(problem.params.output_height, problem.params.output_width);
      if (more > kMostTaps) {
        leave(roi);
        continue;
      }
      if (taps + more > kMostTaps) break;
      taps += more;
      chosen[count++] = roi;
    }
    if (count == 0) continue;
    RoiPlans<Op, T> plans(call, problem, chosen.data(), count, bounds.data(), regions);
    const std::optional<Path> path = PooledForward<Op, T>(call, problem, plans).run(leave);
    if (path) ran[static_cast<size_t>(*path)] = true;
  }
  if (!others.empty()) ran[static_cast<size_t>(Path::kPlain)] = true;
  for (int path = 0; path < kPaths; ++path) {
    if (ran[path]) count_call(call.cpu_settings->isa, static_cast<Path>(path));
  }
  return others;
}

}  // namespace ort_roialign::cpu
