"""MAX-2-SAT: the matrix counts broken clauses, and clauses are learned from solutions."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parent.parent.parent / "examples/maxsat/train.py"


def test_training(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["relaxation, learned"] > result["wishes alone"]
    assert result["correlation"] > 0.4
    assert picture.stat().st_size > 10_000


def test_solutions_are_those_of_least_cost() -> None:
    example = runpy.run_path(str(EXAMPLE))
    random = torch.Generator().manual_seed(1)
    C = example["clauses"](random)
    h, best = example["instances"](C, 5, random)
    v = torch.cat([torch.ones(5, 1, dtype=torch.float64), best], 1)
    least = ((v @ C) * v).sum(1) - (h * best).sum(1)
    for i in range(best.shape[1]):  # no single change is better
        other = v.clone()
        other[:, i + 1] *= -1
        assert bool((((other @ C) * other).sum(1) - (h * other[:, 1:]).sum(1) >= least).all())
