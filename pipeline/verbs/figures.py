"""How verbs print figures."""

import json
import math
from collections.abc import Mapping
from typing import Any


def show(figures: Mapping[str, Any], as_json: bool) -> None:
    """Figures as a table of name and value, or the same names as one JSON object. Missing ones are left out of the table."""
    if as_json:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        print(json.dumps(finite, indent=1, allow_nan=False))
        return
    flat = {name: value for name, value in figures.items() if value is not None and not isinstance(value, dict)}
    width = max(map(len, flat))
    for name, value in flat.items():
        text = f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name:<{width}}  {text}")
