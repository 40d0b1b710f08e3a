"""The multiscale equilibrium: every image is solved, and memory does not grow with the solver's iterations."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent.parent / "examples/multiscale/train.py"


def test_memory_is_that_of_one_evaluation_however_many_iterations(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["solved"] == 1.0
    assert result["deq_accuracy"] > 0.15  # ten classes, eight steps
    assert result["iterations_1e-5"] > result["iterations_1e-2"]
    assert result["deq_bytes_1e-5"] < 1.1 * result["deq_bytes_1e-2"]
    assert result["unrolled_bytes_16"] > 5 * result["unrolled_bytes_2"]
    assert picture.stat().st_size > 10_000
