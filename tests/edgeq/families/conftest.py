"""The tiny encoders as checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from oracle import encoder_tokenizers, encoders, models


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of one of ``oracle.encoders``, written once."""
    made: dict[str, Path] = {}
    shapes = models.stored_shapes()

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("tiny")
            config = encoders.MODELS[name]
            models.write_checkpoint(made[name], name, shapes[name], config)
            encoder_tokenizers.write(made[name], config["model_type"], models.VOCAB)
        return made[name]

    return make
