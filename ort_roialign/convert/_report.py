"""What a conversion did, and what it left as it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Replacement:
    """One node of this package's operators, and what it stands for.

    Attributes:
        node: name of the new node, or of its output where it has no name.
        operator: its operator, such as "MultiScaleRoiAlign".
        replaced: what it replaced, in words.
        sources: names of the RoI operators or loops that it replaced.
    """

    node: str
    operator: str
    replaced: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Left:
    """Something that looks convertible and was left as it is.

    Attributes:
        node: name of the node, or of its output where it has no name.
        operator: what it is.
        reason: why it was left.
    """

    node: str
    operator: str
    reason: str


@dataclass
class ConversionReport:
    """What a conversion did.

    Attributes:
        replaced: every node of this package's operators that the conversion wrote.
        left: what it left, and why.
        warnings: where the new model means something else than the old one, a sentence each.
        nodes_before: nodes of the model, of its subgraphs and functions, before the conversion.
        nodes_after: the same afterwards.
    """

    replaced: list[Replacement] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    nodes_before: int = 0
    nodes_after: int = 0

    @property
    def converted(self) -> bool:
        """Whether anything was converted."""
        return bool(self.replaced)

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """How often something became an operator: (what, operator) -> number of new nodes."""
        return dict(Counter((each.replaced, each.operator) for each in self.replaced))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as dicts, lists and strings, for JSON."""
        return {**asdict(self), "converted": self.converted}
