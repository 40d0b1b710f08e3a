"""Recurrent backpropagation: the gradients are those of the papers' relaxations, and the network learns from them."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent.parent / "examples/recurrent_backprop/train.py"


def test_gradients_are_the_relaxations_and_completion_is_learnt(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    gradients = {name: result[name] for name in ("almeida_A", "almeida_B", "almeida_c", "pineda_w", "pineda_i")}
    assert max(gradients.values()) < 1e-10, gradients
    assert result["error"] < 0.065  # the mean picture's is 0.0773
    assert picture.stat().st_size > 10_000
