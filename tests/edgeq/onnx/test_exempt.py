"""Which layers go back to float, on a made-up cost of each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgeq.onnx.exempt import exempt

LAYERS = [f"layer{i}" for i in range(20)]


def costs(**known: float):
    trials: list[int] = []

    def trial(chosen: Sequence[str]) -> float:
        trials.append(len(chosen))
        return 1 - sum(known.get(name, 0.0) for name in chosen)

    return trial, trials


def test_nothing_goes_where_the_target_holds() -> None:
    trial, trials = costs(layer3=0.005)
    found = exempt(LAYERS, trial, 0.99)
    assert found.layers == LAYERS
    assert found.exempted == {}
    assert trials == [20]


@pytest.mark.parametrize("broken", [["layer7"], ["layer1", "layer2", "layer9"], LAYERS[3:10], LAYERS])
def test_as_few_as_needed(broken: list[str]) -> None:
    trial, _ = costs(**dict.fromkeys(broken, 0.2))
    found = exempt(LAYERS, trial, 0.99)
    assert found.layers == [name for name in LAYERS if name not in broken]
    assert set(found.exempted) == set(broken)
    assert found.closeness == pytest.approx(1)
    assert found.before == pytest.approx(1 - 0.2 * len(broken))
    assert all(effect == pytest.approx(0.2) for effect in found.exempted.values())


def test_the_worst_go_first_and_the_rest_stays() -> None:
    trial, _ = costs(layer4=0.1, layer5=0.004, layer6=0.003)
    found = exempt(LAYERS, trial, 0.99)
    assert list(found.exempted) == ["layer4"]
    assert found.closeness == pytest.approx(0.993)


def test_a_target_out_of_reach() -> None:
    found = exempt(LAYERS, lambda chosen: 0.5, 0.99)
    assert found.layers == []
    assert found.closeness == 0.5


def test_many_layers_are_measured_in_groups() -> None:
    layers = [f"l{i}" for i in range(1000)]
    trial, trials = costs(l500=0.3)
    found = exempt(layers, trial, 0.99)
    assert "l500" in found.exempted
    assert len(trials) < 120
    assert len(found.exempted) <= 16


def test_without_patience_neighbours_are_measured_together() -> None:
    trial, trials = costs(layer3=0.3)
    found = exempt(LAYERS, trial, 0.99, seconds=0)
    assert "layer3" in found.exempted
    assert trials[:8] == [20, 3, 3, 3, 3, 3, 3, 2]
    assert found.closeness == pytest.approx(1)
