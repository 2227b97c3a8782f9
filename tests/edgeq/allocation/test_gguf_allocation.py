"""Allocation for a small random model: what is measured without a file is what the file gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq.allocation.candidates import candidates, parse_types
from edgeq.allocation.gguf import Request, allocate
from edgeq.allocation.search import Goal
from edgeq.allocation.trial import Coded, with_coded
from edgeq.devices.detect import instruction_set
from edgeq.engine.model import from_source, open_model
from edgeq.errors import InputError, UsageError
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu.encode import encode
from edgeq.source import SourceModel

MakeGGUF = Callable[[Path, str], Path]
TYPES = ("Q4_0", "Q5_0", "Q8_0")


@pytest.fixture(scope="module")
def source(random_llama: Callable[[str], Path]) -> SourceModel:
    return SourceModel.open(random_llama("untied"))


def test_a_trial_answers_as_the_file(
    source: SourceModel, make_gguf: MakeGGUF, code_tokens: list[int]
) -> None:
    options = candidates((name, spec.shape) for name, spec in source.specs.items())
    coded = {}
    for name in options:
        values = source.array(name)
        rows = encode("Q8_0", values, None, instruction_set(), Effort.ggml)
        coded[name] = Coded("Q8_0", rows, values.shape[-1])
    shapes = {name: source.shape(name) for name in options}
    trial = with_coded(from_source(source), coded, shapes)
    file = open_model(make_gguf(source.path, "Q8_0"))
    tokens = code_tokens[:48]
    np.testing.assert_allclose(trial.logits(tokens), file.logits(tokens), rtol=0, atol=1e-4)


def test_allocation_beats_one_type_for_all(source: SourceModel, code_tokens: list[int]) -> None:
    model = from_source(source)
    request = Request(source, model, code_tokens[:1024], Goal(), fixed_bytes=0, types=TYPES)
    options = candidates(((name, source.shape(name)) for name in source.specs), TYPES)
    uniform = {name: next(k for k in kinds if k.type_name == "Q5_0") for name, kinds in options.items()}
    request.goal = Goal(nbytes=sum(kind.nbytes for kind in uniform.values()))
    found = allocate(request)
    chosen = found.allocation.chosen
    assert chosen.nbytes <= request.goal.nbytes
    assert set(chosen.types) == set(options)
    assert len(set(chosen.types.values())) > 1
    # Held-out windows, the same for both: what was predicted to be better is.
    problem_kl = _measured_uniform(source, model, code_tokens[:1024], "Q5_0")
    assert chosen.kl < problem_kl
    record = found.record()
    assert record["tokens"]["measured"] <= 256
    assert record["chosen"]["counts"]
    assert sum(record["chosen"]["counts"].values()) == len(options)


def _measured_uniform(source: SourceModel, model, tokens: list[int], kind: str) -> float:
    """The KL of one type for all: a goal of which it is the only candidate."""
    found = allocate(Request(source, model, tokens, Goal(nbytes=1e12), 0, types=(kind,)))
    return found.allocation.chosen.kl


def test_what_cannot_be_measured_is_refused(
    source: SourceModel, encoder_folder: Callable[[str], Path], code_tokens: list[int]
) -> None:
    with pytest.raises(InputError, match="too few to calibrate"):
        allocate(Request(source, from_source(source), code_tokens[:3], Goal(nbytes=1e9), 0, types=TYPES))
    encoder = SourceModel.open(encoder_folder("bert"))
    with pytest.raises(InputError, match="is an encoder"):
        allocate(Request(encoder, from_source(encoder), code_tokens, Goal(nbytes=1e9), 0, types=TYPES))


def test_types_are_parsed() -> None:
    assert parse_types("q8_0, Q4_K,Q4_K") == ("Q4_K", "Q8_0")
    for bad in ("Q4_Z", "", "IQ2_XXS"):
        with pytest.raises(UsageError, match="--types"):
            parse_types(bad)


def test_rows_that_super_blocks_do_not_divide_have_small_blocks() -> None:
    found = candidates([("blk.0.ffn_up.weight", (8, 96)), ("blk.0.attn_q.weight", (8, 33))])
    assert [kind.type_name for kind in found["blk.0.ffn_up.weight"]] == ["Q8_0"]
    assert [kind.type_name for kind in found["blk.0.attn_q.weight"]] == ["F16"]
