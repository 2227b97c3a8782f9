"""How a sentence-transformers directory makes one vector of the tokens': modules.json and what it points to.

Upstream: sentence-transformers ``SentenceTransformer``, ``models.Pooling``, ``models.Dense``, ``models.Normalize``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgeq.errors import FormatError, InputError
from edgeq.families.base import Dense, HyperParameters
from edgeq.families.ops import Activation, Pooling
from edgeq.json_files import read_json

_MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
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
_VECTOR = "sentence_embedding"  # what a module reads and writes, where it says so
# The last part of a Dense's activation_function, a class of PyTorch's.
_ACTIVATIONS: dict[str, Literal["none"] | Activation] = {
    "Identity": "none",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
}


@dataclass(frozen=True)
class Modules:
    """What follows the transformer: how the tokens' vectors become one, what this goes through, and whether it is
    brought to unit length.
    """

    pooling: Pooling
    normalised: bool
    dense: tuple[Dense, ...] = ()

    def applied(self, hp: HyperParameters, folder: Path) -> HyperParameters:
        """A model that ends in these modules; raises FormatError for a Dense of another width than what it reads."""
        width = hp.hidden
        for layer in self.dense:
            if layer.inputs != width:
                raise FormatError(
                    folder / layer.source / "config.json",
                    f"in_features {layer.inputs} must be {width}, the width of what it reads",
                )
            width = layer.outputs
        return replace(
            hp, pooling=self.pooling, dense=self.dense, normalised=self.normalised, head="none", labels=()
        )


def read_modules(folder: Path) -> Modules | None:
    """The modules of a directory; None where it has none, or none that pools.

    Raises FormatError naming the file for a module, an order or a pooling that edgeq does not export.
    """
    if not (folder / _MODULES).is_file():
        return None
    pooling: Pooling | None = None
    dense: list[Dense] = []
    normalised = False
    for i, module in enumerate(read_json(folder / _MODULES, list)):
        if not isinstance(module, dict):
            raise FormatError(folder / _MODULES, f"module {i} is no object")
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(_folder_of(folder, module) / "config.json")
        elif kind == "Normalize":
            normalised = True
        elif kind == "Dense":
            if pooling is None or normalised:
                place = "before the pooling" if pooling is None else "after a Normalize"
                raise FormatError(
                    folder / _MODULES, f"module {i} is a Dense {place}, which edgeq does not export"
                )
            dense.append(_dense(folder, _folder_of(folder, module)))
        elif kind != "Transformer" and kind not in _NOT_IN_INFERENCE:
            raise FormatError(
                folder / _MODULES,
                f"module {i} is a {kind or 'module without a type'}, which edgeq does not export",
                "take it out of the list to export what comes before it",
            )
    return None if pooling is None else Modules(pooling, normalised, tuple(dense))


def prompt_of(folder: Path, name: str | None) -> str:
    """What to put before a text: the prompt of that name, or for None the directory's default, "" where it has none.

    Raises FormatError for a file of another shape, InputError for a name that it has not.
    """
    path = folder / PROMPTS
    config = read_json(path, dict) if path.is_file() else {}
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise FormatError(path, "prompts must give each name a text")
    if name is None and default is None:
        return ""
    chosen = default if name is None else name
    if chosen not in prompts:
        raise InputError(f"{path}: has no prompt {chosen!r}; it has {', '.join(prompts) or 'none'}")
    return str(prompts[chosen])


def _folder_of(folder: Path, module: dict[str, Any]) -> Path:
    """The folder of a module; raises FormatError where that lies outside the model's."""
    try:
        own = (folder / str(module.get("path", ""))).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, a loop of links
        raise FormatError(folder / _MODULES, f"module path cannot be used ({error})") from None
    if not own.is_relative_to(folder.resolve()):
        raise FormatError(folder / _MODULES, f"module path {module.get('path')!r} leaves the folder")
    return own


def _dense(folder: Path, own: Path) -> Dense:
    """A Dense by its config.json; raises FormatError naming the field."""
    path = own / "config.json"
    config = read_json(path, dict)
    for key in ("in_features", "out_features"):
        if type(config.get(key)) is not int or not 0 < config[key] < 2**31:
            raise FormatError(path, f"{key} must be a positive integer, not {config.get(key)!r}")
    if not isinstance(config.get("bias", True), bool):
        raise FormatError(path, f"bias must be true or false, not {config['bias']!r}")
    if config.get("use_residual"):
        raise FormatError(path, "use_residual is set, which edgeq does not export")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, _VECTOR):
            raise FormatError(path, f"{key} must be {_VECTOR}, not {config[key]!r}")
    # Without the field, and before there was one, the class takes Tanh.
    named = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if named not in _ACTIVATIONS:
        raise FormatError(
            path,
            f"activation_function {config['activation_function']!r} is not one that edgeq exports",
            f"it has {', '.join(_ACTIVATIONS)}",
        )
    return Dense(
        config["in_features"],
        config["out_features"],
        _ACTIVATIONS[named],
        config.get("bias", True),
        own.relative_to(folder.resolve()).as_posix(),
    )


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
