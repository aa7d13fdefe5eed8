"""The operator domain as both exporters and the saved files name it."""

from __future__ import annotations

from typing import Final

import onnx

DOMAIN: Final = "ort_roialign"
DOMAIN_VERSION: Final = 1


def ensure_domain_import(model: onnx.ModelProto) -> None:
    """Add the import of this package's domain to a model that lacks it, in place."""
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
