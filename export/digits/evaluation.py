"""How good a detector of digits is: COCO's mean average precision, by size; recall, precision.

    python export/digits/evaluation.py detector.onnx --seed 7

Average precision is computed by pycocotools. Its sizes are ours: a digit is small below 16 pixels
(the root of its box's area) and large above 32.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from composites import coco_annotations, make_composite
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.progress import track
from rich.table import Table

import ort_roialign
from ort_roialign.cli.demo import LEAST_SCORE
from ort_roialign.cli.model_inputs import as_model_input
from ort_roialign.cli.options import errors_as_text
from ort_roialign.cli.picture import MASK_THRESHOLD
from ort_roialign.cli.sessions import failures_as_errors
from ort_roialign.errors import OrtRoiAlignError

SMALL_PX, LARGE_PX = 16, 32
SIZES = ("all", "small", "medium", "large")
# For recall and precision of what the demo shows.
LEAST_IOU, LEAST_HEIGHT_PX = 0.5, 16
OUTPUTS = ("boxes", "labels", "scores", "masks")

# An image [H, W, 3], uint8 -> boxes [D, 4], labels [D], scores [D], masks [D, 1, H, W].
Detect = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Scores:
    """What a detector achieved, each from 0 to 1.

    Attributes:
        box_map: size -> mean average precision of boxes over IoU 0.5 to 0.95; None where there
            was nothing of this size to find.
        mask_map: the same of masks.
        box_ap50: size -> average precision of boxes at IoU 0.5.
        recall: part of the digits of `LEAST_HEIGHT_PX` and more that were found and named rightly,
            with a score of `LEAST_SCORE` and a box of IoU `LEAST_IOU` at least; None if there are
            none.
        precision: part of all detections of `LEAST_SCORE` that are right in this sense.
    """

    box_map: dict[str, float | None]
    mask_map: dict[str, float | None]
    box_ap50: dict[str, float | None]
    recall: float | None
    precision: float


def evaluate(detect: Detect, *, seed: int, count: int) -> Scores:
    """Evaluate a detector on composites of the test split.

    Args:
        detect: the detector.
        seed: of the composites.
        count: how many.
    """
    truth, found = COCO(), []
    composites = [make_composite(seed, "test", number) for number in range(count)]
    truth.dataset = coco_annotations(composites)
    for number, composite in enumerate(track(composites, "Detecting", transient=True)):
        found += _coco_results(number, detect(composite.image))
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth.createIndex()
        results = truth.loadRes(found) if found else COCO()
        boxes = _evaluated(truth, results, "bbox")
        masks = _evaluated(truth, results, "segm")
        kept = [row for row in found if row["score"] >= LEAST_SCORE]
        recall, precision = _recall_precision(truth, truth.loadRes(kept)) if kept else (0.0, 0.0)
    return Scores(
        box_map=_by_size(boxes), mask_map=_by_size(masks), box_ap50=_by_size(boxes, iou=0),
        recall=recall, precision=precision,
    )  # fmt: skip


def _coco_results(image_id: int, found: Mapping[str, np.ndarray]) -> Iterable[dict[str, Any]]:
    masks = found["masks"][:, 0] > MASK_THRESHOLD
    for box, label, score, mask in zip(
        found["boxes"], found["labels"], found["scores"], masks, strict=True
    ):
        x1, y1, x2, y2 = map(float, box)
        yield {
            "image_id": image_id,
            "category_id": int(label),
            "score": float(score),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": coco_mask.encode(np.asfortranarray(mask, np.uint8)),
        }


def _evaluated(truth: COCO, results: COCO, kind: str) -> COCOeval:
    evaluation = COCOeval(truth, results, kind)
    small, large, most = SMALL_PX**2, LARGE_PX**2, 1e10
    evaluation.params.areaRngLbl = list(SIZES)
    evaluation.params.areaRng = [[0, most], [0, small], [small, large], [large, most]]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _by_size(evaluation: COCOeval, iou: int | slice = slice(None)) -> dict[str, float | None]:
    # [IoUs, recalls, classes, sizes, limits of detections]; -1 where there was nothing to find.
    precision = evaluation.eval["precision"][iou, ..., -1]
    by_size = zip(SIZES, np.moveaxis(precision, -1, 0), strict=True)
    return {size: _mean(values[values > -1]) for size, values in by_size}


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _recall_precision(truth: COCO, results: COCO) -> tuple[float | None, float]:
    evaluation = COCOeval(truth, results, "bbox")
    evaluation.params.iouThrs = np.array([LEAST_IOU])
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    images = [each for each in evaluation.evalImgs if each is not None]
    right = np.concatenate([each["dtMatches"][0] > 0 for each in images])
    ids = np.concatenate([each["gtIds"] for each in images]).astype(int)
    matched = np.concatenate([each["gtMatches"][0] > 0 for each in images])
    wanted = np.array([truth.anns[i]["bbox"][3] >= LEAST_HEIGHT_PX for i in ids])
    return _mean(matched[wanted]), round(float(right.mean()), 4)


def print_scores(scores: Scores, console: Console) -> None:
    """Print scores as a table."""
    table = Table(title="COCO's average precision on composites of the test split")
    for heading in ("", *SIZES):
        table.add_column(heading)
    for title, row in (
        ("boxes, IoU 0.5 to 0.95", scores.box_map),
        ("masks, IoU 0.5 to 0.95", scores.mask_map),
        ("boxes, IoU 0.5", scores.box_ap50),
    ):
        values = (row[size] for size in SIZES)
        table.add_row(title, *("none" if value is None else f"{value:.3f}" for value in values))
    console.print(table)
    recall = "none" if scores.recall is None else f"{scores.recall:.1%}"
    console.print(
        f"Scores of {LEAST_SCORE} and more: {recall} of the digits of {LEAST_HEIGHT_PX} pixels "
        f"and more found, {scores.precision:.1%} of the detections right"
    )


def detect_with_session(session: Any) -> Detect:
    """Return how to detect with a session of an exported detector.

    Raises:
        OrtRoiAlignError: if its outputs are not those of torchvision's Mask R-CNN.
    """
    names = [output.name for output in session.get_outputs()]
    if not set(OUTPUTS) <= set(names):
        raise OrtRoiAlignError(
            f"the model must have outputs {', '.join(OUTPUTS)}; got {', '.join(names)}"
        )

    def detect(pixels: np.ndarray) -> Mapping[str, np.ndarray]:
        feed = {session.get_inputs()[0].name: as_model_input(pixels)}
        return dict(zip(names, session.run(names, feed), strict=True))

    return detect


def main(
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The ONNX file.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the composites.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="How many composites.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate an exported detector in onnxruntime; needs no PyTorch."""
    with errors_as_text(), failures_as_errors(model, plugin=True):
        detect = detect_with_session(ort_roialign.InferenceSession(str(model)))
        scores = evaluate(detect, seed=seed, count=count)
    if as_json:
        print(json.dumps(asdict(scores), indent=2))
    else:
        print_scores(scores, Console())


if __name__ == "__main__":
    typer.run(main)
