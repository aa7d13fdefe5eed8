// Where a mask lies in the image, and what each pixel reads of it. The mask is framed with zeros and stretched over its
// box, which grows by the frame and is cut to whole pixels (He et al. 2017, Mask R-CNN; rounding as in torchvision's
// paste_masks_in_image).
#pragma once

#include <cmath>
#include <cstdint>

#include "semantics/host_device.h"

namespace ort_roialign {

// What a pixel reads along one axis: two cells of the framed mask.
template <typename Real>
struct MaskTap {
  int32_t cell[2];
  Real weight[2];
};

template <typename Real>
struct PastedAxis {
  int64_t first_pixel;   // that the stretched mask covers; may lie before the image
  int64_t end_pixel;     // behind the last one; may lie behind the image
  int32_t framed_cells;  // of the mask with its frame
  Real cells_per_pixel;

  // The pixels of the image that the mask covers, [begin, end).
  ORT_ROIALIGN_HD int64_t begin(int64_t extent) const {
    return first_pixel < 0 ? 0 : (first_pixel < extent ? first_pixel : extent);
  }
  ORT_ROIALIGN_HD int64_t end(int64_t extent) const {
    const int64_t held = end_pixel < extent ? end_pixel : extent;
    return held > begin(extent) ? held : begin(extent);
  }

  ORT_ROIALIGN_HD MaskTap<Real> tap(int64_t pixel) const {
    const Real half = static_cast<Real>(0.5);
    const Real at = cells_per_pixel * (static_cast<Real>(pixel - first_pixel) + half) - half;
    const Real inside = at > 0 ? at : 0;
    const int32_t last = framed_cells - 1;
    const int32_t low = inside < static_cast<Real>(last) ? static_cast<int32_t>(inside) : last;
    const Real beyond = inside - static_cast<Real>(low);
    const Real weight = beyond < 1 ? beyond : 1;
    return {{low, low < last ? low + 1 : low}, {1 - weight, weight}};
  }
};

// Lays a mask of `cells` between the edges of its box, in image pixels. `frame` cells of zeros come before and behind.
// The box grows along both axes by what the frame adds to the mask's width: so torchvision does, also where a mask is
// not square.
template <typename Real>
ORT_ROIALIGN_HD PastedAxis<Real> lay_pasted_axis(Real low_image, Real high_image, int32_t cells, int32_t mask_width,
                                                 int32_t frame) {
  const int32_t framed = cells + 2 * frame;
  const Real half = static_cast<Real>(0.5);
  const Real growth = static_cast<Real>(static_cast<double>(mask_width + 2 * frame) / mask_width);
  // Halved before they meet, so that huge edges give no inf - inf; other edges give the same bits either way.
  const Real centre = high_image * half + low_image * half;
  const Real reach = (high_image * half - low_image * half) * growth;
  // Further out there is no image; a conversion of more would overflow.
  const Real most = static_cast<Real>(int64_t{1} << 40);
  const auto whole = [&](Real edge) {
    return static_cast<int64_t>(edge < -most ? -most : (edge > most ? most : edge));
  };
  const int64_t first = whole(centre - reach);
  const int64_t last = whole(centre + reach);
  const int64_t pixels = last - first + 1 > 1 ? last - first + 1 : 1;
  return {first, last + 1, framed, static_cast<Real>(framed) / static_cast<Real>(pixels)};
}

}  // namespace ort_roialign
