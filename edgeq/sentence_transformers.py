"""How a sentence-transformers directory makes one vector of the tokens': modules.json and what it points to.

Upstream: sentence-transformers ``SentenceTransformer``, ``models.Pooling``, ``models.Normalize``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import FormatError
from edgeq.families.ops import Pooling
from edgeq.json_files import read_json

_MODULES = "modules.json"
_MODES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}
# Each was a switch of its own before there was one ``pooling_mode``.
_SWITCHES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_NOT_IN_INFERENCE = ("Dropout",)


@dataclass(frozen=True)
class Modules:
    """What follows the encoder: how the tokens' vectors become one, and whether that is brought to unit length."""

    pooling: Pooling
    normalised: bool


def read_modules(folder: Path) -> Modules | None:
    """The modules of a directory; None where it has none, or none that pools.

    Raises FormatError naming the file for a module or a pooling that edgeq does not export.
    """
    if not (folder / _MODULES).is_file():
        return None
    pooling: Pooling | None = None
    normalised = False
    for i, module in enumerate(read_json(folder / _MODULES, list)):
        if not isinstance(module, dict):
            raise FormatError(folder / _MODULES, f"module {i} is no object")
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(_config_of(folder, module))
        elif kind == "Normalize":
            normalised = True
        elif kind != "Transformer" and kind not in _NOT_IN_INFERENCE:
            raise FormatError(
                folder / _MODULES,
                f"module {i} is a {kind or 'module without a type'}, which edgeq does not export",
                "take it out of the list to export what comes before it",
            )
    return None if pooling is None else Modules(pooling, normalised)


def _config_of(folder: Path, module: dict[str, Any]) -> Path:
    """The config.json of a module; raises FormatError where that lies outside the folder."""
    try:
        own = (folder / str(module.get("path", ""))).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, a loop of links
        raise FormatError(folder / _MODULES, f"module path cannot be used ({error})") from None
    if not own.is_relative_to(folder.resolve()):
        raise FormatError(folder / _MODULES, f"module path {module.get('path')!r} leaves the folder")
    return own / "config.json"


def _pooling(path: Path) -> Pooling:
    config = read_json(path, dict)
    modes = [mode for switch, mode in _SWITCHES.items() if config.get(switch)]
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [str(one) for one in (named if isinstance(named, list) else [named])]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise FormatError(
            path,
            f"pooling_mode is {' and '.join(modes) or 'none'}, of which edgeq does not export sentence embeddings",
            f"it has {', '.join(_MODES)}, one at a time",
        )
    return _MODES[modes[0]]
