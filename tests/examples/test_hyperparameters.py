"""Hyperparameters by implicit gradients: the gradient is the validation loss's, and the test loss falls with it."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parent.parent.parent / "examples/hyperparameters/train.py"


def test_test_loss_falls(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    result = runpy.run_path(str(EXAMPLE))["main"](["--fast", "--out", str(picture)])
    assert result["one_decay_loss"] < 0.6 * result["before_loss"]
    assert result["a_decay_each_loss"] < 0.9 * result["one_decay_loss"]
    assert result["a_decay_each_accuracy"] > result["before_accuracy"] + 0.02
    assert picture.stat().st_size > 10_000


def test_gradient_by_the_decays_is_a_difference_of_trainings() -> None:
    example = runpy.run_path(str(EXAMPLE))
    train, validation, _ = example["splits"](1, 3)
    log_decay = torch.linspace(-8, 0, 640, dtype=torch.float64).reshape(1, 10, 64).requires_grad_()
    loss = example["trained"](log_decay, train, validation)[0].sum()
    (gradient,) = torch.autograd.grad(loss, log_decay)
    direction = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ahead, behind = (
            example["trained"](log_decay + h * direction, train, validation)[0].sum() for h in (1e-4, -1e-4)
        )
    expected = float(ahead - behind) / 2e-4
    assert abs(float((gradient * direction).sum()) - expected) < 1e-6 * abs(expected)
