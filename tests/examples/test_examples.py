"""The examples run and show what they claim."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from implicitdsl.driver import check_source
from implicitdsl.ground.source import Source

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def load(name: str) -> ModuleType:
    file = EXAMPLES / name
    found = importlib.util.spec_from_file_location(file.stem + "_example", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.imp")), ids=lambda f: f.stem)
def test_specs_have_neither_errors_nor_unexpected_warnings(file: Path) -> None:
    found = check_source(Source(str(file), file.read_text(encoding="utf-8")))
    # of a cell that is bound from Python nothing can be proved, and a forced iteration says so
    assert [d for d in found if d.level.value != "info" and d.code != "IMP401"] == []


def test_circle() -> None:
    result = load("circle/circle.py").main()
    torch.testing.assert_close(result["z"], torch.sqrt(1 - result["a"] ** 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(result["slope"], -result["a"] / result["z"], rtol=1e-10, atol=1e-12)
    assert result["converged"].tolist() == [True, True, False]
    assert not torch.isinf(result["edge"]).any()


def test_tanh() -> None:
    worst = load("tanh/tanh.py").main()
    assert worst["value"] < 1e-12
    assert worst["gradient"] < 1e-10


def test_digits_short(tmp_path: Path) -> None:
    result = load("digits/train.py").main(["--fast", "--out", str(tmp_path / "digits.png")])
    assert result["deq_accuracy"] > 0.8
    assert result["deq_bytes"] < result["tied_bytes"] / 3
    assert (tmp_path / "digits.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_reach_the_weight_tied_network(seed: int, tmp_path: Path) -> None:
    result = load("digits/train.py").main(["--seed", str(seed), "--out", str(tmp_path / "digits.png")])
    assert result["deq_accuracy"] >= 0.97
    assert result["deq_accuracy"] >= result["tied_accuracy"] - 0.005
