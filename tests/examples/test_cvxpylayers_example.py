"""The first example of cvxpylayers: the gradient is exact, and what is not DPP compiles as well."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent.parent / "examples/cvxpylayers/compare.py"


def test_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--out", str(picture)])
    assert result["implicitdsl_off"] < 1e-12
    assert result["free"] == 1.0
    assert "||A x - b||_1" in capsys.readouterr().out
    assert picture.stat().st_size > 10_000
