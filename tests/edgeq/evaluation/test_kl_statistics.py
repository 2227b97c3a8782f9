"""Every number of a comparison against its formula, written plainly, and windows against llama-perplexity's rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgeq.errors import InputError, UsageError
from edgeq.evaluation.kl_statistics import KlStatistics, PerplexityStatistics
from edgeq.evaluation.statistics import group_error, share_interval
from edgeq.evaluation.token_scores import NO_TOKEN, compare_logits, shared_top, top_tokens
from edgeq.evaluation.windows import Windows, windows_of

VOCAB, ROWS = 30, (7, 7, 12)


def _log_softmax(row: np.ndarray) -> list[float]:
    values = [float(x) for x in row]
    total = math.fsum(math.exp(x - max(values)) for x in values)
    return [x - max(values) - math.log(total) for x in values]


@pytest.fixture(scope="module")
def windows() -> list[tuple[np.ndarray, np.ndarray, list[int]]]:
    random = np.random.default_rng(3)
    return [
        (
            *(random.standard_normal((2, n, VOCAB)).astype(np.float32) * 3),
            random.integers(0, VOCAB, n).tolist(),
        )
        for n in ROWS
    ]


@pytest.fixture(scope="module")
def found(windows) -> KlStatistics:
    statistics = KlStatistics()
    for reference, candidate, following in windows:
        statistics.add(reference, candidate, following, first_position=5)
    return statistics


def test_numbers_are_their_formulas(windows, found) -> None:
    kl, nll, base, same, top5 = [], [], [], [], []
    for reference, candidate, following in windows:
        for p_row, q_row, token in zip(reference, candidate, following, strict=True):
            p, q = _log_softmax(p_row), _log_softmax(q_row)
            kl.append(math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
            nll.append(-q[token])
            base.append(-p[token])
            order_p, order_q = (sorted(range(VOCAB), key=lambda i: -values[i]) for values in (p, q))
            same.append(order_p[0] == order_q[0])
            top5.append(len({*order_p[:5]} & {*order_q[:5]}) / 5)
    n = len(kl)
    mean = math.fsum(kl) / n
    change = [math.exp(-a) - math.exp(-b) for a, b in zip(nll, base, strict=True)]
    rms = math.sqrt(math.fsum(d * d for d in change) / n)
    ratio = [a - b for a, b in zip(nll, base, strict=True)]
    expected = {
        "tokens": n,
        "windows": 3,
        "kl_mean": mean,
        # llama-perplexity: the deviation with n, over the root of n - 1
        "kl_standard_error": math.sqrt(math.fsum((x - mean) ** 2 for x in kl) / n / (n - 1)),
        "kl_median": sorted(kl)[n // 2 - 1] / 2 + sorted(kl)[n // 2] / 2,
        "kl_99": float(np.quantile(kl, 0.99)),
        "kl_99.9": float(np.quantile(kl, 0.999)),
        "kl_max": max(kl),
        "top1_agreement": sum(same) / n,
        "top5_agreement": sum(top5) / n,
        "delta_p_mean": math.fsum(change) / n,
        "delta_p_rms": rms,
        "delta_p_min": min(change),
        "delta_p_25": float(np.quantile(change, 0.25)),
        "perplexity": math.exp(math.fsum(nll) / n),
        "perplexity_float": math.exp(math.fsum(base) / n),
        "perplexity_ratio": math.exp(math.fsum(ratio) / n),
        "perplexity_standard_error": math.exp(math.fsum(nll) / n) * np.std(nll) / math.sqrt(n - 1),
        "perplexity_ratio_standard_error": math.exp(math.fsum(ratio) / n) * np.std(ratio) / math.sqrt(n - 1),
    }
    summary = found.summary()
    for name, value in expected.items():
        assert summary[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_equal_answers_differ_by_nothing() -> None:
    logits, statistics = np.random.default_rng(1).standard_normal((6, 20)).astype(np.float32), KlStatistics()
    statistics.add(logits, logits, [1, 2, 3, 4, 5, NO_TOKEN])
    summary = statistics.summary()
    assert (summary["kl_mean"], summary["kl_max"], summary["delta_p_rms"]) == (0, 0, 0)
    assert (summary["top1_agreement"], summary["top5_agreement"], summary["perplexity_ratio"]) == (1, 1, 1)


def test_impossible_tokens_count_nothing() -> None:
    """Logits of -inf on both sides are probabilities of 0; extreme ones do not overflow."""
    row = np.array([[3e4, -3e4, -np.inf, 0.0, 1.0, 2.0]], np.float32)
    scores = compare_logits(row, row, [1])
    assert (float(scores.kl[0]), float(scores.nll[0])) == (0.0, 6e4)


def test_blocks_of_rows_change_nothing(monkeypatch, windows) -> None:
    whole = compare_logits(*windows[2])
    monkeypatch.setattr("edgeq.evaluation.token_scores._BLOCK_VALUES", 2 * VOCAB)
    for one, other in zip(whole, compare_logits(*windows[2]), strict=True):
        assert np.array_equal(one, other)


def test_top_tokens_and_what_they_share() -> None:
    logits = np.array([[1, 5, 3, 2, 4, 0], [0, 1, 2, 3, 4, 5]], np.float32)
    assert top_tokens(logits, 2).tolist() == [[1, 4], [5, 4]]
    assert shared_top(top_tokens(logits[:1], 2), top_tokens(logits[1:], 2)).tolist() == [0.5]
    assert top_tokens(logits, 9).shape == (2, 6)


def test_a_slice_has_its_own_numbers(found) -> None:
    early = found.positions < 8
    assert found.slice(early)["tokens"] == 9
    assert found.slice(early)["kl_mean"] == pytest.approx(found.scores().kl[early].mean())
    everything = found.slice(np.ones(sum(ROWS), bool))
    assert everything["kl_window_error"] == pytest.approx(found.summary()["kl_window_error"])
    assert everything["log_perplexity_ratio_mean"] == pytest.approx(
        math.log(found.summary()["perplexity_ratio"])
    )


def test_errors_of_windows_see_what_tokens_share() -> None:
    """Values that are the same all over a window say no more than one; independent ones say as much as they are."""
    random = np.random.default_rng(0)
    shared = np.repeat(random.standard_normal(40), 25)
    groups = np.repeat(np.arange(40), 25)
    assert group_error(shared, groups) == pytest.approx(np.std(shared[::25], ddof=1) / math.sqrt(40))
    independent = random.standard_normal(1000)
    assert group_error(independent, groups) == pytest.approx(np.std(independent) / math.sqrt(1000), rel=0.5)
    assert group_error(independent, np.zeros(1000)) == 0.0


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (5, 10, 0.2366, 0.7634)]
)
def test_shares_have_wilsons_interval(hits, count, low, high) -> None:
    assert share_interval(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_perplexity_without_a_reference(windows, found) -> None:
    alone = PerplexityStatistics()
    for _, candidate, following in windows:
        alone.add(candidate, following)
    expected = {name: value for name, value in found.summary().items() if name in alone.summary()}
    assert alone.summary() == pytest.approx(expected)


def test_windows_are_llama_perplexitys() -> None:
    """Whole windows only; the second half scored; the text's first token again at every beginning."""
    cut = list(Windows(range(10, 35), context=8, bos=1))
    assert [window.tokens[0] for window in cut] == [1, 1, 1]
    assert cut[1].tokens[1:] == [19, 20, 21, 22, 23, 24, 25]
    assert (cut[1].first, cut[1].following) == (4, [23, 24, 25])  # n_ctx - n_ctx / 2 - 1 of them
    everything = next(iter(Windows(range(8), context=8, scored="all")))
    assert (everything.first, everything.following) == (0, [1, 2, 3, 4, 5, 6, 7])


def test_windows_of_a_text(tinylm) -> None:
    tokenizer = Tokenizer.from_file(str(tinylm / "tokenizer.json"))
    text = "import os\n" * 400
    count = len(tokenizer.encode(text).ids)
    assert windows_of(text, "text", tokenizer, 1024).context == 512
    assert windows_of(text, "text", tokenizer, 128).context == 128
    assert len(windows_of(text, "text", tokenizer, 1024, 64)) == count // 64
    assert windows_of(text[:90], "text", tokenizer, 1024).context == len(tokenizer.encode(text[:90]).ids)
    assert windows_of(text, "text", tokenizer, 1024).bos is None
    with pytest.raises(UsageError, match="--context 2000"):
        windows_of(text, "text", tokenizer, 1024, 2000)
    with pytest.raises(InputError, match="give a longer text"):
        windows_of("x", "text", tokenizer, 1024, 64)
