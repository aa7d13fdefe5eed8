// The pooling kernels for one instruction set, out of that set's Vector (vector_*.h, to be included first).
//
// A source file that includes this is compiled with its instruction set's flags, so everything here has internal
// linkage: a function that the linker could take in place of another object's would run on processors that lack the
// instructions.
#pragma once

#include "cpu/isa/direct.h"
#include "cpu/isa/few_channels.h"
#include "cpu/isa/listed.h"
#include "cpu/isa/packed.h"
#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {
namespace {

template <typename T>
void pool_direct(const DirectPoolJob<T>& job, const RoiPlan& plan, int64_t channel_begin, int64_t channel_end) {
  using Lanes = LaneTaps<ComputeType<T>>;
  if (job.channels <= kFewChannels && Lanes::count(plan.x, job.output_width) <= Lanes::kMost) {
    pool_few_channels(job, plan, channel_begin, channel_end);
  } else {
    pool_planes(job, plan, channel_begin, channel_end);
  }
}

template <typename T>
constexpr PoolingKernels<T> kernels_of() {
  using Real = ComputeType<T>;
  return {pack<T>,           unpack_cells<T>,    pool_packed<T>,      pool_direct<T>, sum_cells<Real>,
          spread_sums<Real>, take_samples<Real>, spread_maxima<Real>, dot<Real>};
}

constexpr IsaKernels kIsaKernels = {kIsaName, kernels_of<float>(), kernels_of<double>(), kernels_of<Float16>(),
                                    kernels_of<BFloat16>()};

}  // namespace
}  // namespace ort_roialign::cpu
