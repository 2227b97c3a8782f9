"""JSON files of a model directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError


def read_json(path: Path, kind: type) -> Any:
    """Parse a JSON file whose top level must be ``kind``; raises FormatError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(path, f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # JSON, UTF-8, numbers of too many digits; nesting
        raise FormatError(path, f"is not JSON ({error})") from None
    if not isinstance(value, kind):
        raise FormatError(path, f"must hold a JSON {'object' if kind is dict else 'array'}")
    return value
