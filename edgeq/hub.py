"""Finding a model: a directory, or a Hugging Face hub id where there is a network."""

from __future__ import annotations

import re
from pathlib import Path

from edgeq.errors import InputError, MissingDependencyError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "vocab.txt", "1_Pooling/config.json"]


def resolve(model: str) -> Path:
    """The local directory of a model, or its GGUF file; a hub id is downloaded (or found in the hub's cache).

    Raises InputError for a path that is no model, MissingDependencyError when the hub cannot be reached.
    """
    path = Path(model)
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix == ".gguf":
            return path
        raise InputError(
            f"{model}: is a file; export reads a model directory with config.json and safetensors, or a .gguf file"
        )
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise InputError(f"{model}: no such directory, and not a hub id such as HuggingFaceTB/SmolLM2-135M")
    return _download(model)


def model_name(path: Path) -> str:
    """What to call a model: its file's name, its folder's, or the repository's in the hub's cache."""
    path = path.resolve()
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.rsplit("--", 1)[-1]
    return (path.stem if path.suffix == ".gguf" else path.name) or "model"


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_WANTED))
    except RepositoryNotFoundError:
        raise InputError(
            f"{model}: no such model on the hub (or it is private: run `hf auth login`)"
        ) from None
    except HFValidationError:
        raise InputError(f"{model}: no such directory, and not a hub id") from None
    except Exception as error:  # the HTTP library's own errors come through, and differ by its version
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise MissingDependencyError(
            f"{model}: no such directory, and the Hugging Face hub cannot be reached ({reason}); "
            "check the network, or give a local model directory"
        ) from None
