"""The samples that `reference._sampling` lists, against a look at every sample's coordinate."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ort_roialign.reference._sampling import SamplingRule, sample_axis

EXTENT_CELLS = 13


def coordinates_of_all_samples(begin_image, end_image, num_bins, scale, ratio):
    """The formula of the coordinates, [num_bins, samples_per_bin], in the type of the box."""
    real = type(begin_image)
    begin = begin_image * real(scale) - real(0.5)
    bin_size = (end_image * real(scale) - real(0.5) - begin) / real(num_bins)
    count = ratio or max(0, int(np.ceil(bin_size)))
    bins = np.arange(num_bins).astype(real)[:, np.newaxis]
    samples = np.arange(count).astype(real) + real(0.5)
    return begin + bins * bin_size + samples * bin_size / real(count)


@settings(max_examples=60, deadline=None)
@given(
    real=st.sampled_from([np.float32, np.float64]),
    begin=st.floats(-3e4, 3e4),
    size=st.floats(-3e4, 3e4) | st.floats(-30, 30),
    num_bins=st.integers(1, 4),
    scale=st.sampled_from([np.float32(0.1), np.float32(1)]),
    ratio=st.sampled_from([0, 0, 1, 7, 200]),
)
def test_inside_samples_equal_a_look_at_each(real, begin, size, num_bins, scale, ratio):
    begin_image, end_image = real(begin), real(begin + size)
    every = coordinates_of_all_samples(begin_image, end_image, num_bins, scale, ratio)
    rule = SamplingRule(scale, ratio, "half_pixel")
    bins = sample_axis(begin_image, end_image, num_bins, EXTENT_CELLS, rule)
    assert len(bins) == num_bins
    for samples, coordinates in zip(bins, every, strict=True):
        assert samples.num_samples == len(coordinates)
        inside = np.flatnonzero((coordinates >= -1) & (coordinates <= EXTENT_CELLS))
        assert_array_equal(samples.first_inside + np.arange(samples.num_inside), inside)
        position = np.clip(coordinates[inside].astype(np.float64), 0, EXTENT_CELLS - 1)
        assert_array_equal(samples.low + samples.fraction, position)
        assert_array_equal(samples.high, np.minimum(samples.low + 1, EXTENT_CELLS - 1))


def test_taps_merge_the_samples_and_keep_touched_cells_of_weight_zero():
    # Samples at 0, 1.25, 2.5, 3.75 and 5 of a map of five cells.
    rule = SamplingRule(np.float32(1), 5, "output_half_pixel")
    (samples,) = sample_axis(np.float64(-0.625), np.float64(5.625), 1, 5, rule)
    cells, weights = samples.taps
    assert_array_equal(cells, [0, 1, 2, 3, 4])
    assert_array_equal(weights, [1, 0.75, 0.25 + 0.5, 0.5 + 0.25, 0.75 + 1])
    # Only the sample at 0: the neighbour is touched, with the weight 0.
    (samples,) = sample_axis(
        np.float64(-0.5), np.float64(0.5), 1, 5, SamplingRule(np.float32(1), 1, "output_half_pixel")
    )
    cells, weights = samples.taps
    assert_array_equal(cells, [0, 1])
    assert_array_equal(weights, [1, 0])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("half_image", [1e6, 1e9, 1e12, 1e30, 1e300])
def test_work_for_a_huge_box_is_bounded_by_the_map(half_image, real):
    with np.errstate(over="ignore"):
        half = np.minimum(real(half_image), np.finfo(real).max)
    rule = SamplingRule(np.float32(1), 0, "half_pixel")
    bins = sample_axis(-half, half, 7, EXTENT_CELLS, rule)
    assert [samples.num_samples for samples in bins] == [bins[0].num_samples] * 7
    visited = sum(samples.num_inside for samples in bins)
    # Float32 numbers of samples near 2^30 are 128 apart, so some hundred share a coordinate.
    assert visited <= 3 * EXTENT_CELLS + 1024


def test_number_of_samples_saturates():
    rule = SamplingRule(np.float32(1), 0, "half_pixel")
    for real in (np.float32, np.float64):
        (samples,) = sample_axis(real(0), real(1e12), 1, EXTENT_CELLS, rule)
        assert samples.num_samples == 2**31 - 1
    rule = SamplingRule(np.float32(1), 2**40, "half_pixel")
    (samples,) = sample_axis(np.float64(90), np.float64(99), 1, EXTENT_CELLS, rule)
    assert samples.num_samples == 2**31 - 1
    assert samples.num_inside == 0


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_weights_sum_to_the_number_of_inside_samples(real):
    rng = np.random.default_rng(0)
    for ratio in (0, 3):
        rule = SamplingRule(np.float32(0.1), ratio, "half_pixel")
        for begin_image, size_image in rng.uniform(0, 200, (20, 2)):
            for samples in sample_axis(
                real(begin_image - 50), real(begin_image + size_image), 3, EXTENT_CELLS, rule
            ):
                _, weights = samples.taps
                assert_allclose(weights.sum(), samples.num_inside, *tolerances.KERNEL["float64"])
