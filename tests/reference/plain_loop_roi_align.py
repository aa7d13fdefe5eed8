"""RoIAlign of float64 maps as a plain loop over samples: an oracle that shares no code with ours.

The rule is that of torchvision.ops.roi_align, with the maximum over samples added.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def plain_loop_samples(feature_map, box_image, bin_y, bin_x, attributes):
    """All samples [C, gh, gw] of one bin, one by one, as the rule for float64 maps reads."""
    height, width = feature_map.shape[1:]
    half_pixel = attributes["coordinate_transformation_mode"] == "half_pixel"

    def axis(begin, end, number, num_bins):
        offset = 0.5 if half_pixel else 0.0
        begin = begin * attributes["spatial_scale"] - offset
        size = end * attributes["spatial_scale"] - offset - begin
        size = size if half_pixel else max(size, 1.0)
        step = size / num_bins
        count = attributes["sampling_ratio"] or max(0, math.ceil(size / num_bins))
        return [begin + number * step + (i + 0.5) * step / count for i in range(count)]

    def neighbours(coordinate, extent):
        coordinate = max(coordinate, 0.0)
        low = int(coordinate)
        if low >= extent - 1:
            return extent - 1, extent - 1, 0.0
        return low, low + 1, coordinate - low

    x1, y1, x2, y2 = (float(coordinate) for coordinate in box_image)
    ys = axis(y1, y2, bin_y, attributes["output_height"])
    xs = axis(x1, x2, bin_x, attributes["output_width"])
    samples = np.zeros((feature_map.shape[0], len(ys), len(xs)))
    for (i, y), (j, x) in itertools.product(enumerate(ys), enumerate(xs)):
        if y < -1 or y > height or x < -1 or x > width:
            continue
        y_low, y_high, ly = neighbours(y, height)
        x_low, x_high, lx = neighbours(x, width)
        samples[:, i, j] = (
            (1 - ly) * (1 - lx) * feature_map[:, y_low, x_low]
            + (1 - ly) * lx * feature_map[:, y_low, x_high]
            + ly * (1 - lx) * feature_map[:, y_high, x_low]
            + ly * lx * feature_map[:, y_high, x_high]
        )
    return samples


def plain_loop(x, rois, batch_indices, **attributes):
    shape = (len(rois), x.shape[1], attributes["output_height"], attributes["output_width"])
    y = np.zeros(shape)
    reduce = np.mean if attributes["mode"] == "avg" else np.max
    for roi, ph, pw in np.ndindex(shape[0], *shape[2:]):
        image = x[batch_indices[roi]]
        samples = plain_loop_samples(image, rois[roi], ph, pw, attributes)
        y[roi, :, ph, pw] = reduce(samples, axis=(1, 2)) if samples.size else 0.0
    return y
