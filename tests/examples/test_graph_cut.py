"""Segmentation: signs of the layer's output are the minimum cut, and a network learns through it."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import torch

import implicitdsl as imp

EXAMPLE = Path(__file__).parent.parent.parent / "examples/graph_cut/train.py"


def test_signs_are_the_minimum_cut() -> None:
    """Against every labelling of a ring with a chord."""
    torch.manual_seed(0)
    ends = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)]
    D = torch.zeros(6, 5, dtype=torch.float64)
    for row, (i, j) in zip(D, ends, strict=True):
        row[i], row[j] = -1.0, 1.0
    layer = imp.compile(EXAMPLE.parent / "segment.imp", n=5, m=6, D=D)
    u, w = torch.randn(20, 5, dtype=torch.float64), 0.6 * torch.rand(20, 6, dtype=torch.float64)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=5)), dtype=torch.float64)
    cost = u @ every.T + w @ (every @ D.T).abs().T
    assert torch.equal(layer(u, w) > 0, every[cost.argmin(1)] > 0.5)


def test_training(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["network and cut"] < result["threshold"]
    assert picture.stat().st_size > 10_000
