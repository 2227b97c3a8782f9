"""The config.json that goes with a graph made from a GGUF file: the family reads its own shapes out of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from edgeq.families import for_config
from edgeq.gguf_source import GGUFSource

_SHAPES = ("n_layers", "context", "hidden", "ffn", "n_heads", "n_kv_heads", "head_dim", "vocab", "tied")


def test_config(tinylm: Path, make_gguf: Callable[[Path, str], Path]) -> None:
    source = GGUFSource.open(make_gguf(tinylm, "F32"))
    config = json.loads(source.companions()["config.json"])
    family = for_config(config, "config.json")
    assert family is source.family
    read = family.from_config(config)
    assert {name: getattr(read, name) for name in _SHAPES} == {
        name: getattr(source.hp, name) for name in _SHAPES
    }
    stored = json.loads((tinylm / "config.json").read_text("utf-8"))
    assert {key: stored[key] for key in config if key in stored} == {
        key: value for key, value in config.items() if key in stored
    }
