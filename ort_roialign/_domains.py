"""The domains of operators, as models name them."""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "ort_roialign"
DOMAIN_VERSION: Final = 1
# A model may write the standard domain either way.
STANDARD_DOMAINS: Final = ("", "ai.onnx")
