// Which instruction set's kernels a session runs, and by which path: the best one unless the environment forces
// another.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {

// How a call pools, or spreads a gradient.
enum class Path {
  kPlain,   // cell by cell out of the map's own planes, in C++ for any processor
  kDirect,  // out of the map's own planes; the forward passes of RoiAlign and MultiScaleRoiAlign alone have it
  kPacked,  // out of blocks of channels that are repacked first
};
constexpr int kPaths = 3;

struct Settings {
  int isa;                   // position in all_isas()
  std::optional<Path> path;  // what calls take where they can; empty: what the cost model chooses
};

// An instruction set that this library has kernels for.
struct Isa {
  const IsaKernels* kernels;
  bool runs_here;  // this processor has the instructions
};

// From the most general one to the best.
const std::vector<Isa>& all_isas();

// The kernels of one element type that a session runs.
template <typename T>
const PoolingKernels<T>& kernels_for(const Settings& settings) {
  const IsaKernels& isa = *all_isas()[settings.isa].kernels;
  if constexpr (std::is_same_v<T, float>) return isa.float32;
  if constexpr (std::is_same_v<T, double>) return isa.float64;
  if constexpr (std::is_same_v<T, Float16>) return isa.float16;
  if constexpr (std::is_same_v<T, BFloat16>) return isa.bfloat16;
}

// The names of those that run here.
std::vector<std::string> isa_names();

const char* path_name(Path path);

// Reads ORT_ROIALIGN_FORCE_ISA and ORT_ROIALIGN_FORCE_PATH. Throws InvalidArgument where one names what is not there.
Settings read_settings();

// Counts the calls, for tests and for the curious: what was asked for is seen to have run.
void count_call(int isa, Path path);
std::string calls_as_json();

}  // namespace ort_roialign::cpu
