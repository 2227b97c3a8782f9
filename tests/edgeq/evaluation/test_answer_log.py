"""A log of answers: what it keeps is enough for the comparison, and it is believed only where it fits."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeq.errors import FormatError, InputError, OutputExistsError
from edgeq.evaluation.decoders import Beside, evaluate_decoder
from edgeq.evaluation.log import FORMAT, LogReference, LogWriter
from edgeq.evaluation.slices import slices
from edgeq.evaluation.windows import Windows

VOCAB, CONTEXT = 50, 12


class _Noisy:
    """Logits that are a table of the token, and noise."""

    name = "noisy"

    def __init__(self, seed: int, noise: float) -> None:
        table = np.random.default_rng(0).standard_normal((VOCAB, VOCAB)) * 2
        self._table = (table + noise * np.random.default_rng(seed).standard_normal(table.shape)).astype("f")

    def window(self, tokens: list[int], first: int = 0) -> np.ndarray:
        return self._table[tokens[first:]]


@pytest.fixture(scope="module")
def windows() -> Windows:
    return Windows(np.random.default_rng(1).integers(0, VOCAB, 5 * CONTEXT).tolist(), CONTEXT)


@pytest.fixture
def written(tmp_path, windows):
    def write(top: int):
        log, path = LogWriter(windows, top), tmp_path / f"{top}.safetensors"
        evaluate_decoder(_Noisy(2, 0), windows, watch=log.watch)
        log.write(path, "m", force=False)
        return path

    return write


def test_a_whole_log_is_the_model_beside(windows, written) -> None:
    candidate = _Noisy(3, 0.3)
    beside = evaluate_decoder(candidate, windows, Beside(_Noisy(2, 0))).summary()
    log = LogReference(written(VOCAB), windows)
    found = evaluate_decoder(candidate, windows, log).summary()
    assert found == pytest.approx(beside, rel=1e-4, abs=1e-6)
    assert not log.is_bound


def test_a_short_log_bounds_the_divergence_from_below(windows, written) -> None:
    candidate = _Noisy(3, 0.3)
    beside = evaluate_decoder(candidate, windows, Beside(_Noisy(2, 0))).summary()
    log = LogReference(written(10), windows)
    found = evaluate_decoder(candidate, windows, log).summary()
    assert 0.3 * beside["kl_mean"] < found["kl_mean"] < beside["kl_mean"]
    for name in ("top1_agreement", "top5_agreement", "perplexity", "perplexity_ratio", "delta_p_rms"):
        assert found[name] == pytest.approx(beside[name], rel=1e-4)
    assert log.is_bound
    assert log.name == "log of m"


def test_a_log_is_not_overwritten(windows, written) -> None:
    path = written(5)
    with pytest.raises(OutputExistsError):
        written(5)
    assert LogReference(path, windows).compare(next(iter(windows)), np.zeros((5, VOCAB), np.float32))


def test_what_is_no_log_or_another_ones(tmp_path, windows, written) -> None:
    path = written(5)
    with pytest.raises(InputError, match="another text"):
        LogReference(path, Windows(windows.tokens, CONTEXT, scored="all"))
    with pytest.raises(InputError, match="another text"):
        LogReference(path, Windows(windows.tokens, CONTEXT // 2))
    plain = tmp_path / "plain.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, plain)
    with pytest.raises(FormatError, match="is no log"):
        LogReference(plain, windows)
    tensors = load_file(path)
    for name, wrong in {
        "ids": tensors["ids"][:-1],
        "rest": tensors["rest"].astype(np.float64),
        "log_p": tensors["log_p"][:, 1:].copy(),
    }.items():
        save_file(tensors | {name: wrong}, plain, {"format": FORMAT, "scored": "half"})
        with pytest.raises(FormatError):
            LogReference(plain, windows)
    save_file(tensors | {"ids": tensors["ids"] + VOCAB}, plain, {"format": FORMAT, "scored": "half"})
    with pytest.raises(InputError, match="outside of the model's vocabulary"):
        evaluate_decoder(_Noisy(3, 0.1), windows, LogReference(plain, windows))


def test_slices_hold_every_token_once(windows) -> None:
    answers = evaluate_decoder(_Noisy(3, 0.3), windows, Beside(_Noisy(2, 0)))
    found = slices(answers.statistics, windows.tokens)
    total = answers.summary()["tokens"]
    for cut in found.values():
        assert sum(one["tokens"] for one in cut) == total
        mean = sum(one["tokens"] * one["kl_mean"] for one in cut) / total
        assert mean == pytest.approx(answers.summary()["kl_mean"], rel=1e-5)
    assert found["by_position"][0]["from"] == CONTEXT // 2
    assert found["by_position"][-1]["to"] == CONTEXT - 2
