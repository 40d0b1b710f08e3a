"""The equilibrium language model: learns within a few steps, on solves that all converge."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent.parent / "examples/language_model/train.py"


def test_it_is_ahead_of_the_unigram_after_forty_steps(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["converged"] == 1.0
    assert result["deq_valid"] < result["unigram"] - 0.3
    assert abs(result["deq_valid"] - result["tied_valid"]) < 0.3
    assert result["bigram"] < result["unigram"]
    assert picture.stat().st_size > 10_000
