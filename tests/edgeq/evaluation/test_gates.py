"""What counts as worse than before, and what as chance."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgeq.evaluation.gates import regressions

RECORD: dict[str, Any] = {
    "file": "m.gguf",
    "engine": "embedded",
    "context": 512,
    "bytes": 1_000_000,
    "answers": {
        "kl_mean": 0.02,
        "kl_standard_error": 0.001,
        "top1_agreement": 0.9,
        "top1_standard_error": 0.01,
    },
    "cost": {
        "latency_p50": 0.010,
        "latency_spread": 0.0006745,
        "latency_count": 100,
        "peak_memory_bytes": 100_000_000,
    },
}


def _changed(part: str, **values: float) -> dict[str, Any]:
    record = copy.deepcopy(RECORD)
    (record[part] if part else record).update(values)
    return record


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("answers", {"kl_mean": 0.0242}, None),  # three errors of a difference are 3 · √2 · 0.001
        ("answers", {"kl_mean": 0.0243}, "mean KL rose from 0.02 to 0.0243"),
        ("answers", {"kl_mean": 0.001}, None),
        ("answers", {"top1_agreement": 0.858}, None),
        ("answers", {"top1_agreement": 0.857}, "same top token fell from 90.00% to 85.70%"),
        ("cost", {"latency_p50": 0.0110}, None),  # 5 % and 3 · √2 · 1.2533 · 1 ms / 10
        ("cost", {"latency_p50": 0.0111}, "median latency rose from 10 ms to 11.1 ms"),
        ("cost", {"latency_p50": 0.002}, None),
        ("cost", {"peak_memory_bytes": 104e6}, None),
        ("cost", {"peak_memory_bytes": 106e6}, "peak memory rose from 100.0 MB to 106.0 MB"),
        ("", {"bytes": 1_000_900}, None),
        ("", {"bytes": 1_002_000}, "size rose"),
    ],
)
def test_worse_by_more_than_chance(part, values, said) -> None:
    found = regressions([_changed(part, **values)], [RECORD])
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_tolerance_for_speed_alone() -> None:
    assert regressions([_changed("cost", latency_p50=0.014)], [RECORD], tolerance=0.5) == []
    assert regressions([_changed("answers", kl_mean=0.03)], [RECORD], tolerance=0.5) != []


def test_what_is_missing_now() -> None:
    assert "is not now" in regressions([_changed("", engine="llama.cpp")], [RECORD])[0]
    without = copy.deepcopy(RECORD)
    del without["cost"]
    assert [line.split(":")[1].split(" was")[0].strip() for line in regressions([without], [RECORD])] == [
        "median latency",
        "peak memory",
    ]
    assert regressions([RECORD], [without]) == []
