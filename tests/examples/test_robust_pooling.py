"""Robust pooling as an optimum: its gradient is the closed form, and what is learned beats the average."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent.parent / "examples/robust_pooling/train.py"


def test_pooling_learns(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    for name in ("LogCosh", "Welsch"):
        assert result[f"{name}_off"] < 1e-12
        assert result[name] < 0.6 * result["Average"]
    assert picture.stat().st_size > 10_000
