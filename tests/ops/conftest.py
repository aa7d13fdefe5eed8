"""Inputs of the operators of other domains."""

from __future__ import annotations

import numpy as np
import pytest
from other_domains import SCALE, Array, with_image
from plugin import random_inputs


@pytest.fixture
def inputs(rng: np.random.Generator) -> dict[str, Array]:
    return random_inputs(rng, "float32", spatial_scale=SCALE, num_rois=30)


@pytest.fixture
def packed(inputs: dict[str, Array]) -> dict[str, Array]:
    return {"X": inputs["X"], "rois": with_image(inputs["rois"], inputs["batch_indices"])}
