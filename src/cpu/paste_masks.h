// PasteMasks on the CPU: every element of the output is written once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/tasks.h"
#include "ops/error.h"
#include "ops/paste_masks.h"

namespace ort_roialign::cpu {

// Pastes bands of rows. A mask's row is stretched along x once for all pixels below one another that read it.
template <typename T, typename Output>
class MaskPaster {
 public:
  using Real = ComputeType<T>;

  MaskPaster(const PasteProblem<T>& problem, Output* output) : problem_(problem), output_(output) {}

  void paste(int64_t mask, Range64 rows) const {
    const auto y_axis = problem_.y_axis(mask);
    const auto x_axis = problem_.x_axis(mask);
    const int64_t top = std::clamp(y_axis.begin(problem_.height), rows.begin, rows.end);
    const int64_t bottom = std::clamp(y_axis.end(problem_.height), top, rows.end);
    const Range64 columns{x_axis.begin(problem_.width), x_axis.end(problem_.width)};
    Output* const image = output_ + mask * problem_.height * problem_.width;
    if (columns.size() == 0 || top == bottom) {
      std::fill(image + rows.begin * problem_.width, image + rows.end * problem_.width, outside());
      return;
    }
    std::fill(image + rows.begin * problem_.width, image + top * problem_.width, outside());
    StretchedRows stretched(problem_, mask, x_axis, columns);
    for (int64_t y = top; y < bottom; ++y) {
      const MaskTap<Real> tap = y_axis.tap(y);
      const Real* const low = stretched.row(tap.cell[0]);
      const Real* const high = stretched.row(tap.cell[1]);
      Output* const row = image + y * problem_.width;
      std::fill(row, row + columns.begin, outside());
      for (int64_t x = columns.begin; x < columns.end; ++x) {
        const int64_t at = x - columns.begin;
        problem_.store(low[at] * tap.weight[0] + high[at] * tap.weight[1], row + x);
      }
      std::fill(row + columns.end, row + problem_.width, outside());
    }
    std::fill(image + bottom * problem_.width, image + rows.end * problem_.width, outside());
  }

 private:
  // The two rows of a mask that were used last, with a value for each column of the image that they cover.
  class StretchedRows {
   public:
    StretchedRows(const PasteProblem<T>& problem, int64_t mask, const PastedAxis<Real>& axis, Range64 columns)
        : problem_(problem), mask_(mask), cells_(axis.framed_cells) {
      taps_.reserve(columns.size());
      for (int64_t x = columns.begin; x < columns.end; ++x) taps_.push_back(axis.tap(x));
      for (std::vector<Real>& values : values_) values.resize(taps_.size());
    }

    // Stays until the call after the next one.
    const Real* row(int32_t number) {
      for (int slot = 0; slot < 2; ++slot) {
        if (numbers_[slot] != number) continue;
        last_ = slot;
        return values_[slot].data();
      }
      last_ = 1 - last_;
      numbers_[last_] = number;
      for (int32_t cell = 0; cell < static_cast<int32_t>(cells_.size()); ++cell) {
        cells_[cell] = problem_.framed_cell(mask_, number, cell);
      }
      Real* const values = values_[last_].data();
      for (size_t at = 0; at < taps_.size(); ++at) {
        const MaskTap<Real>& tap = taps_[at];
        values[at] = cells_[tap.cell[0]] * tap.weight[0] + cells_[tap.cell[1]] * tap.weight[1];
      }
      return values;
    }

   private:
    const PasteProblem<T>& problem_;
    int64_t mask_;
    std::vector<Real> cells_;  // of one row, with its frame
    std::vector<MaskTap<Real>> taps_;
    std::vector<Real> values_[2];
    int32_t numbers_[2] = {-1, -1};
    int last_ = 1;
  };

  // What is written where no mask is: no value reaches a threshold above 0, each one any other.
  Output outside() const {
    Output value;
    problem_.store(0, &value);
    return value;
  }

  const PasteProblem<T>& problem_;
  Output* output_;
};

template <typename T>
struct PasteMasks {
  static void forward(const KernelCall& call) {
    const PasteProblem<T> problem = make_paste_problem<T>(call);
    for (int64_t mask = 0; mask < problem.num_masks; ++mask) {
      if (problem.is_finite(mask)) continue;
      throw InvalidArgument(text(call.operator_name, ": boxes[", mask, "] must have finite coordinates; got [",
                                 problem.coordinate(mask, 0), ", ", problem.coordinate(mask, 1), ", ",
                                 problem.coordinate(mask, 2), ", ", problem.coordinate(mask, 3), "]"));
    }
    if (problem.params.has_threshold) {
      paste_all(call, problem, static_cast<uint8_t*>(call.outputs[0].data));
    } else {
      paste_all(call, problem, static_cast<T*>(call.outputs[0].data));
    }
  }

 private:
  template <typename Output>
  static void paste_all(const KernelCall& call, const PasteProblem<T>& problem, Output* output) {
    constexpr int64_t kRowsPerTask = 128;
    const int64_t bands = divide_up(problem.height, kRowsPerTask);
    if (problem.width == 0) return;
    const MaskPaster<T, Output> paster(problem, output);
    call.parallel_for(problem.num_masks * bands, [&](int64_t task) {
      const int64_t first = task % bands * kRowsPerTask;
      paster.paste(task / bands, {first, std::min(first + kRowsPerTask, problem.height)});
    });
  }
};

}  // namespace ort_roialign::cpu
