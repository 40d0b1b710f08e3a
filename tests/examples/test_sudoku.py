"""A quadratic program that is told no rules finds those of 4 × 4 Sudoku."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parent.parent.parent / "examples/sudoku/train.py"


def test_all_grids_and_puzzles_with_one_solution() -> None:
    example = runpy.run_path(str(EXAMPLE))
    every = example["grids"]()
    assert every.shape == (288, 64)
    assert len(every.unique(dim=0)) == 288
    rules = example["rules"]().double()
    torch.testing.assert_close(every @ rules.T, torch.ones(288, 64, dtype=torch.float64))
    assert int(torch.linalg.matrix_rank(rules)) == 40
    given, answers = example["puzzles"](every, 10, torch.Generator().manual_seed(0), every)
    for puzzle, answer in zip(given, answers, strict=True):
        fits = every @ puzzle == puzzle.sum()
        assert int(fits.sum()) == 1
        assert bool((every[fits][0] == answer).all())


@pytest.mark.slow
def test_the_rules_appear(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["outside"] < 0.8 * result["outside_before"]
    assert picture.stat().st_size > 10_000
