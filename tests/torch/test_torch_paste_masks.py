"""`ort_roialign.torch.paste_masks`: torchvision's numbers, PyTorch's machinery, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from ort_roialign import reference
from ort_roialign.errors import InvalidArgumentError
from ort_roialign.torch import paste_masks


def draw(rng: np.random.Generator, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw masks, and boxes within an image of 70 by 90 pixels."""
    low = rng.uniform(0, 50, (count, 2))
    boxes = np.concatenate([low, low + np.exp(rng.uniform(0, 3, (count, 2)))], axis=1)
    masks = rng.random((count, 1, 28, 28), dtype=np.float32)
    return torch.from_numpy(masks), torch.from_numpy(boxes.astype(np.float32))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_equals_torchvision(rng: np.random.Generator, padding: int) -> None:
    masks, boxes = draw(rng)
    expected = paste_masks_in_image(masks, boxes, (70, 90), padding)
    pasted = paste_masks(masks, boxes, (70, 90), padding)
    torch.testing.assert_close(pasted, expected, rtol=1e-5, atol=1e-6)
    reached = paste_masks(masks, boxes, (70, 90), padding, threshold=0.5)
    assert reached.dtype == torch.uint8
    assert torch.equal(reached.bool(), expected >= 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(rng: np.random.Generator, dtype: torch.dtype) -> None:
    masks, boxes = draw(rng)
    masks, boxes = masks.to(dtype), boxes.double() if dtype == torch.float64 else boxes
    pasted = paste_masks(masks, boxes, (70, 90))
    assert pasted.dtype == dtype
    expected = reference.paste_masks(masks.double().numpy(), boxes.numpy(), (70, 90))
    name = str(dtype).removeprefix("torch.")
    np.testing.assert_allclose(pasted.double().numpy(), expected, *tolerances.KERNEL[name])


def test_memory_in_any_order(rng: np.random.Generator) -> None:
    masks, boxes = draw(rng)
    turned = masks.transpose(2, 3).contiguous().transpose(2, 3)
    spread = torch.stack([boxes, boxes], dim=2)[:, :, 0]
    assert not turned.is_contiguous()
    assert not spread.is_contiguous()
    expected = paste_masks(masks, boxes, (70, 90))
    assert torch.equal(paste_masks(turned, spread, (70, 90)), expected)


def test_there_is_no_gradient(rng: np.random.Generator) -> None:
    masks, boxes = draw(rng)
    pasted = paste_masks(masks.requires_grad_(), boxes, (70, 90))
    with pytest.raises(NotImplementedError, match="PasteMasks: there is no gradient"):
        pasted.sum().backward()
    assert not paste_masks(masks.detach(), boxes, (70, 90)).requires_grad


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_opcheck(rng: np.random.Generator, threshold: float | None) -> None:
    masks, boxes = draw(rng)
    checks: Any = torch.library.opcheck(
        torch.ops.ort_roialign.paste_masks, (masks, boxes, 70, 90, 1, threshold)
    )
    assert set(checks.values()) == {"SUCCESS"}


def test_compiled_for_any_size(rng: np.random.Generator) -> None:
    compiled = torch.compile(paste_masks, fullgraph=True, backend="aot_eager", dynamic=True)
    for count, size in ((12, (70, 90)), (3, (40, 50)), (0, (8, 9))):
        masks, boxes = draw(rng, count)
        assert torch.equal(compiled(masks, boxes, size), paste_masks(masks, boxes, size))


TWO_INTEGERS = "paste_masks: image_size must be height and width, two integers"


@pytest.mark.parametrize(
    "size", [[70, 90], torch.Size([70, 90]), np.array([70, 90]).tolist(), torch.tensor([70, 90])]
)
def test_ways_to_give_the_size(rng: np.random.Generator, size: Any) -> None:
    masks, boxes = draw(rng)
    assert torch.equal(paste_masks(masks, boxes, size), paste_masks(masks, boxes, (70, 90)))


def test_a_size_with_a_fraction_is_not_cut_while_it_is_traced(rng: np.random.Generator) -> None:
    masks, boxes = draw(rng)
    trace: Any = torch.jit.trace
    with pytest.raises(InvalidArgumentError, match="two integers"):
        trace(lambda masks, boxes: paste_masks(masks, boxes, (2.5, 3)), (masks, boxes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": torch.ones(12, 28, 28)}, "PasteMasks: masks must have shape [num_masks, 1, "),
        ({"masks": torch.ones(12, 2, 3, 3)}, "PasteMasks: masks must have shape [num_masks, 1, "),
        (
            {"masks": torch.ones(12, 1, 3, 3, dtype=torch.int32)},
            "PasteMasks: masks must be of type float32, float64, float16, bfloat16; got int32",
        ),
        ({"boxes": torch.ones(3, 4)}, "PasteMasks: boxes must have shape [num_masks, 4] = [12, 4]"),
        (
            {"boxes": torch.ones(12, 4, dtype=torch.float64)},
            "PasteMasks: boxes must be of type float32, as masks; got float64",
        ),
        ({"boxes": torch.full((12, 4), torch.inf)}, "PasteMasks: boxes[0] must have finite coord"),
        ({"image_size": (70,)}, f"{TWO_INTEGERS}; got (70,)"),
        ({"image_size": 5}, f"{TWO_INTEGERS}; got 5"),
        ({"image_size": (2.5, 3)}, f"{TWO_INTEGERS}; got (2.5, 3)"),
        ({"image_size": "ab"}, f"{TWO_INTEGERS}; got 'ab'"),
        ({"image_size": torch.tensor([2.5, 3])}, f"{TWO_INTEGERS}; got tensor([2.5"),
        ({"image_size": (-1, 3)}, "PasteMasks: image_size must be height and width of 0 to "),
        ({"padding": -2}, "PasteMasks: attribute padding must be at least 0; got -2"),
        ({"threshold": torch.nan}, "PasteMasks: attribute threshold must be finite; got nan"),
    ],
)
def test_bad_arguments(rng: np.random.Generator, change: dict[str, Any], message: str) -> None:
    masks, boxes = draw(rng)
    given: dict[str, Any] = {"masks": masks, "boxes": boxes, "image_size": (70, 90), **change}
    with pytest.raises(InvalidArgumentError) as caught:
        paste_masks(**given)
    assert str(caught.value).startswith(message)
