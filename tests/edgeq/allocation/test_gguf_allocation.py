"""Allocation for a small random model: what is measured without a file is what the file gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import heldout
import numpy as np
import pytest

from edgeq.allocation import gguf
from edgeq.allocation.allocate import Found, Request, allocate
from edgeq.allocation.candidates import candidates, parse_types
from edgeq.allocation.goal import exactly
from edgeq.allocation.meter import Runtime
from edgeq.allocation.search import Goal
from edgeq.allocation.split import split_of
from edgeq.calibration.text import Text, read_text
from edgeq.convert import gguf_file
from edgeq.convert.checkpoint_rows import CheckpointRows
from edgeq.devices.detect import instruction_set
from edgeq.engine.model import from_source, open_model
from edgeq.engine.replaced import EncodedMatrix, with_replaced
from edgeq.errors import GateError, InputError, UsageError
from edgeq.formats.effort import Effort
from edgeq.formats.gguf.overrides import parse_override
from edgeq.kernels_cpu.encode import encode
from edgeq.report.front_plot import front_plot
from edgeq.source import SourceModel

Ask = Callable[..., Found]
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
        coded[name] = EncodedMatrix("Q8_0", rows, values.shape[-1], len(values))
    trial = with_replaced(from_source(source), coded)
    file = open_model(make_gguf(source.path, "Q8_0"))
    tokens = code_tokens[:48]
    np.testing.assert_allclose(trial.logits(tokens), file.logits(tokens), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def ask(source: SourceModel, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """(goal, types) → the allocation, whose files are written as any."""
    model, rows, folder = from_source(source), CheckpointRows(source), tmp_path_factory.mktemp("trials")
    split = split_of(source, Text("held-out code", heldout.code()[:4000]))

    def trial(types: dict[str, str]) -> AbstractContextManager[Runtime]:
        exact = [parse_override(f"^{re.escape(name)}$={kind}") for name, kind in types.items()]
        planned = gguf_file.plan(rows, "Q8_0", exact)
        options = gguf_file.WriteOptions(force=True, effort=Effort.ggml)
        return gguf.opened(gguf_file.write(rows, planned, folder / "trial.gguf", options)[0][0])

    def allocation(goal: Goal, types: tuple[str, ...] = TYPES) -> Found:
        options = candidates(((name, spec.shape) for name, spec in source.specs.items()), types)
        return allocate(Request(source, model, split, goal, options, 0, trial))

    return allocation


def test_allocation_beats_one_type_for_all(source: SourceModel, ask: Ask) -> None:
    options = candidates(((name, spec.shape) for name, spec in source.specs.items()), ("Q5_0",))
    room = sum(kinds[0].nbytes for kinds in options.values())
    found, uniform = ask(Goal(nbytes=room)), ask(Goal(nbytes=1e12), ("Q5_0",))
    chosen = found.allocation.chosen
    assert chosen.nbytes <= room == uniform.allocation.chosen.nbytes
    assert set(chosen.types) == set(options)
    assert len(set(chosen.types.values())) > 1
    # Held-out windows, the same for both: what was predicted to be better is.
    assert chosen.loss < uniform.allocation.chosen.loss
    record = found.record()
    assert record["measure"] == "kl"
    assert 0 < record["tokens"]["measured"] < record["tokens"]["calibrated"]
    assert sum(record["chosen"]["counts"].values()) == len(options)
    assert json.loads(json.dumps(record)) == record


def test_a_text_is_cut_in_two(source: SourceModel, encoder_folder: Callable[[str], Path]) -> None:
    """Nothing that is measured on is calibrated on, and what is compared stands at the beginning."""
    encoder = SourceModel.open(encoder_folder("bert"))
    text = Text("numbers", "\n".join(f"number {i} of many" for i in range(300)))
    found, lines = split_of(encoder, text), encoder.tokenizer().encode_batch(text.lines())
    assert [line.ids for line in lines[: len(found.measured)]] == found.measured
    assert found.compared == found.counts()["measured"] == sum(map(len, found.measured))
    assert {tuple(ids) for ids in found.probed} <= {tuple(ids) for ids in found.calibrated}
    assert 75 <= len(found.measured) <= 80  # a quarter of the tokens
    windows = split_of(source, text)
    assert windows.compared >= windows.counts()["measured"] > 0
    for model in (source, encoder):
        with pytest.raises(InputError, match="too short to calibrate and to measure on"):
            split_of(model, Text("short", "one"))


def test_types_of_an_encoder(encoder_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """A cosine is kept by a smaller file than that of the best types, and what is impossible is said."""
    source = SourceModel.open(encoder_folder("bert"))
    rows, split = CheckpointRows(source), split_of(source, read_text(None))
    options = candidates(((name, spec.shape) for name, spec in source.specs.items()), TYPES)

    def trial(types: dict[str, str]) -> AbstractContextManager[Runtime]:
        planned = gguf_file.plan(rows, "Q8_0", exactly(types))
        written = gguf_file.WriteOptions(force=True, effort=Effort.ggml)
        return gguf.opened(gguf_file.write(rows, planned, tmp_path / "trial.gguf", written)[0][0])

    def ask(goal: Goal) -> Found:
        return allocate(Request(source, from_source(source), split, goal, options, 0, trial))

    best = sum(kinds[-1].nbytes for kinds in options.values())
    found = ask(Goal(loss=1 - 0.999))
    chosen, record = found.allocation.chosen, found.record()
    assert chosen.measured is not None
    assert 0.999 <= chosen.measured["cosine_mean"] < 1
    assert chosen.nbytes < best
    assert record["measure"] == "cosine"
    assert "1 - cosine to float" in front_plot(record)
    with pytest.raises(GateError, match=r"has a cosine of 1: the best that fits has a cosine of 0\.99"):
        ask(Goal(loss=1e-12))


def test_types_are_parsed() -> None:
    assert parse_types("q8_0, Q4_K,Q4_K") == ("Q4_K", "Q8_0")
    for bad in ("Q4_Z", "", "IQ2_XXS"):
        with pytest.raises(UsageError, match="--types"):
            parse_types(bad)


def test_rows_that_super_blocks_do_not_divide_have_small_blocks() -> None:
    found = candidates([("blk.0.ffn_up.weight", (8, 96)), ("blk.0.attn_q.weight", (8, 33))])
    assert [kind.type_name for kind in found["blk.0.ffn_up.weight"]] == ["Q8_0"]
    assert [kind.type_name for kind in found["blk.0.attn_q.weight"]] == ["F16"]
