"""Trains a detector of digits, with Lightning; seeded, and with the progress shown."""

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from composites import make_composite
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import MaskRCNN

from ort_roialign.cli.model_inputs import as_model_input

BATCH_SIZE = 4
LARGEST_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-3
LARGEST_GRADIENT_NORM = 10.0

Target = dict[str, Tensor]


class Composites(Dataset[tuple[Tensor, Target]]):
    """Composites of one split as torchvision's detectors take them; labels count from 1."""

    def __init__(self, seed: int, split: str, count: int) -> None:
        self.seed, self.split, self.count = seed, split, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Target]:
        composite = make_composite(self.seed, self.split, number)
        target = {
            "boxes": torch.from_numpy(composite.boxes),
            "labels": torch.from_numpy(composite.digits) + 1,
            "masks": torch.from_numpy(composite.masks).to(torch.uint8),
        }
        return torch.from_numpy(as_model_input(composite.image)), target


class _Training(lightning.LightningModule):
    def __init__(self, detector: MaskRCNN, steps: int) -> None:
        super().__init__()
        self.detector, self.steps = detector, steps

    def training_step(self, batch: tuple[list[Tensor], list[Target]], _: int) -> Tensor:
        losses = self.detector(*batch)
        self.log_dict(
            {name.removeprefix("loss_"): loss for name, loss in losses.items()},
            prog_bar=True,
            batch_size=len(batch[0]),
        )
        return sum(losses.values())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), LARGEST_LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LARGEST_LEARNING_RATE, total_steps=self.steps, pct_start=0.1
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _as_lists(samples: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def train(detector: MaskRCNN, *, seed: int, steps: int) -> MaskRCNN:
    """Train on composites that are each seen once.

    The order of the composites and of the random choices depend on the seed alone. So does the
    result on one machine with one number of threads; sums in another order round differently.

    Args:
        detector: with random weights; changed in place.
        seed: of the composites and of the choices that training makes.
        steps: batches of `BATCH_SIZE` composites.

    Returns:
        The detector in evaluation mode.
    """
    lightning.seed_everything(seed, verbose=False)
    loader = DataLoader(
        Composites(seed, "train", steps * BATCH_SIZE),
        BATCH_SIZE,
        num_workers=1,
        collate_fn=_as_lists,
        persistent_workers=True,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        gradient_clip_val=LARGEST_GRADIENT_NORM,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[RichProgressBar()],
    )
    trainer.fit(_Training(detector.train(), steps), loader)
    return detector.eval()
