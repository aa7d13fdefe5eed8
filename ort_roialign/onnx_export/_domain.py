"""The import of the operator domain, which exporters leave out."""

from __future__ import annotations

import onnx

from ort_roialign._domains import DOMAIN, DOMAIN_VERSION


def ensure_domain_import(model: onnx.ModelProto) -> None:
    """Add the import of this package's domain to a model that lacks it, in place."""
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
