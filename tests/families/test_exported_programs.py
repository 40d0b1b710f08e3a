"""Exported optimisation layers: their graphs call programs by name, which a process knows that compiled the spec."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import implicitdsl as imp
from implicitdsl.solvers import named

NEAREST = """layer Nearest(n):
  given y in R^n
  const G in R^(n, n)
  argmin_{z in R^n} ||z - y||^2 subject to G z <= 1
"""
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def test_a_loaded_program_runs_where_its_spec_was_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """… and says what is missing where it was not."""
    G, y = torch.randn(3, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    layer = imp.compile(NEAREST, n=3, G=G)
    torch.export.save(torch.export.export(layer, (y,)), tmp_path / "nearest.pt2")
    program = torch.export.load(tmp_path / "nearest.pt2").module()
    torch.testing.assert_close(program(y), layer(y), rtol=0, atol=1e-12)
    monkeypatch.setattr(named, "_NAMED", {})
    with pytest.raises(RuntimeError, match="has not compiled from its spec"):
        program(y)
    imp.compile(NEAREST, n=3, G=G)(y)
    torch.testing.assert_close(program(y), layer(y), rtol=0, atol=1e-12)
