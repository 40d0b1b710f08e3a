"""A progress bar on request: what it says, by tqdm or without, and that nothing else changes."""

from __future__ import annotations

import sys
import types
from typing import Any, ClassVar

import pytest
import torch

import implicitdsl as imp
from implicitdsl.ground import progress

D = torch.float64
TEXT = "given k in R\nfind z(t) in R for t in [0, 4] such that dz/dt = cos(k t) - z^3, z(0) = 1\nusing dopri5"
K = torch.tensor([0.5, 40.0, 2.0], dtype=D)


class Bars:
    """What tqdm would have been told."""

    made: ClassVar[list[Bars]] = []

    def __init__(self, total: float, desc: str, **_: Any) -> None:
        self.total, self.desc, self.n, self.texts, self.closed = total, desc, 0.0, list[str](), False
        Bars.made.append(self)

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.texts.append(text)

    def update(self, by: float) -> None:
        assert by >= 0
        self.n += by

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "OFTEN", 0.0)
    monkeypatch.setattr(progress, "SELDOM", 0.0)
    Bars.made.clear()


def test_without_tqdm_lines_go_to_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    layer = imp.compile(TEXT)
    plain = layer.solve(K)
    assert capsys.readouterr().err == ""
    shown = layer.solve(K, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert torch.equal(shown.value, plain.value)
    assert torch.equal(shown.report.iterations, plain.report.iterations)
    assert lines[-1] == "3 samples: 100 %, t = 4, 3 of 3 finished"
    parts = [float(line.split(":")[1].split("%")[0]) for line in lines]
    assert parts == sorted(parts)
    assert any(", 2 of 3 finished" in line for line in lines)
    assert len(lines) >= int(plain.report.iterations.max())


def test_tqdm_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bars))
    layer = imp.compile(TEXT)
    k = K.clone().requires_grad_()
    (want,) = torch.autograd.grad(layer(k).sum(), k)
    assert not Bars.made
    with imp.progress():
        (found,) = torch.autograd.grad(layer(k).sum(), k)
    assert torch.equal(found, want)
    (bar,) = Bars.made
    assert bar.closed
    assert bar.n == pytest.approx(1)
    assert bar.texts[-1] == "t = 4, 3 of 3 finished"
    layer(K)
    assert len(Bars.made) == 1


def test_a_solve_that_stops_says_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    layer = imp.compile("given x in R\nfind z(t) in R for t in [0, 2] such that dz/dt = z^2, z(0) = x\nusing dopri5")
    with pytest.warns(imp.ConvergenceWarning):
        layer.solve(torch.ones(1, dtype=D), progress=True)
    assert "1 sample:  50 %, t = 1, 1 of 1 finished" in capsys.readouterr().err
