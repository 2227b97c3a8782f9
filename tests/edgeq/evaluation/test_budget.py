"""Limits: how they are written, what breaks them, and what a file may not hold."""

from __future__ import annotations

import pytest

from edgeq.errors import FormatError
from edgeq.evaluation.budget import LIMITS, read_budget

RECORD = {
    "file": "m.gguf",
    "bytes": 3_200_000,
    "answers": {
        "perplexity_ratio": 1.01,
        "perplexity_ratio_standard_error": 0.002,
        "kl_mean": 0.02,
        "kl_standard_error": 0.0004,
        "kl_99": 0.2,
        "top1_agreement": 0.93,
        "top1_standard_error": 0.002,
    },
    "cost": {"latency_p95": 0.05, "peak_memory_bytes": 2e8, "decode_tokens_per_second": 20},
}


@pytest.fixture
def budget(tmp_path):
    def read(text: str):
        (tmp_path / "budget.toml").write_text(text)
        return read_budget(tmp_path / "budget.toml")

    return read


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_perplexity_ratio = 1.02", None),
        ("max_perplexity_ratio = 1.0", "is 1.01 ± 0.002, above max_perplexity_ratio = 1"),
        ("max_kl_mean = 0.02", None),
        ("max_kl_mean = 0.0199", "mean KL is 0.02 ± 0.0004, above max_kl_mean = 0.0199"),
        ("max_kl_99 = 0.1", "KL at 99 % is 0.2, above"),
        ("min_top1 = 0.93", None),
        ("min_top1 = 0.95", "same top token is 93.00% ± 0.20%, below min_top1 = 95.00%"),
        ('max_p95 = "50ms"', None),
        ('max_p95 = "0.04 s"', "latency at 95 % is 50 ms, above max_p95 = 40 ms"),
        ("max_p95 = 0.051", None),
        ('max_memory = "0.2GB"', None),
        ('max_memory = "199.9 MB"', "peak memory is 200.0 MB, above"),
        ('max_size = "3.2M"', None),
        ("max_size = 3199999", "size is 3.2 MB, above"),
        ("min_tokens_per_second = 21", "tokens generated in a second is 20, below"),
        ("min_cosine = 0.99", "mean cosine was not measured, and budget.toml has min_cosine"),
    ],
)
def test_a_limit_and_what_breaks_it(budget, line, said) -> None:
    broken = budget(line).broken(RECORD)
    assert len(broken) == (said is not None)
    assert said is None or said in broken[0]


def test_every_broken_limit_has_its_line(budget) -> None:
    assert len(budget("max_kl_mean = 0\nmax_size = 1\nmin_top1 = 1").broken(RECORD)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_kl = 1", "unknown key 'max_kl'"),
        ("[max_kl_mean]", "must be a number such as 0.02"),
        ("max_kl_mean = true", "must be a number"),
        ('max_kl_mean = "0.02"', "must be a number"),
        ('max_size = "3,2 GB"', 'must be a number such as "500MB"'),
        ("min_top1 = 93", "at most 1"),
        ("max_kl_mean = -1", "at least 0"),
        (f"max_kl_mean = 1{'0' * 400}", "must be a number such as 0.02"),
        ("max_kl_mean = nan", "at least 0"),
        ("max_kl_mean =", "is no TOML"),
        ("", "has no limit"),
    ],
)
def test_what_is_no_budget(budget, text, said) -> None:
    with pytest.raises(FormatError, match=said):
        budget(text)


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        read_budget(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(FormatError, match="is no TOML"):
        read_budget(tmp_path / "bad.toml")


def test_every_limit_bounds_one_side() -> None:
    assert all(key.startswith(("max_", "min_")) for key in LIMITS)
