// Which instruction set's kernels a session runs, and by which path: the best one unless the environment forces
// another.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cpu/isa_kernels.h"

namespace ort_roialign::cpu {

// How a forward call pools.
enum class Path {
  kPlain,   // cell by cell, in C++ for any processor; every operator and every direction has it
  kDirect,  // out of the map's own planes
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

// The names of those that run here.
std::vector<std::string> isa_names();

const char* path_name(Path path);

// Reads ORT_ROIALIGN_FORCE_ISA and ORT_ROIALIGN_FORCE_PATH. Throws InvalidArgument where one names what is not there.
Settings read_settings();

// Counts the forward calls, for tests and for the curious: what was asked for is seen to have run.
void count_call(int isa, Path path);
std::string calls_as_json();

}  // namespace ort_roialign::cpu
