"""A bound function that cuts the graph is named: its derivative would be zero in silence."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

SPEC = """layer L(n):
  given x in R^n
  fn f: R^n -> R^n
  find z in R^n such that z = 0.5 f(z) + x
"""


class Cut(nn.Module):
    """Its parameter has a gradient, its argument has none."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, z: Tensor) -> Tensor:
        return self.w * z.detach().sin()


def warned(f: Callable[..., Tensor]) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        layer = imp.compile(SPEC, f=f)
        for _ in range(2):  # once, not at every call
            layer(torch.linspace(-1, 1, 6).reshape(2, 3))
    return [str(w.message) for w in found if "[IMP403]" in str(w.message)]


@pytest.mark.parametrize(
    "f",
    [lambda z: z.detach().sin(), lambda z: 1.0 * (z > 0.1), Cut()],
    ids=["detach", "comparison", "module"],
)
def test_a_function_without_a_derivative_is_named_once(f: Callable[..., Tensor]) -> None:
    assert warned(f) == [
        "[IMP403] `f` returns values without a derivative (detach, a comparison?): gradients take it for a constant"
    ]


@pytest.mark.parametrize(
    "f",
    [torch.sin, nn.Linear(3, 3), lambda z: torch.ones_like(z), lambda z: z + z.detach(), torch.sign],
    ids=["sin", "module", "constant", "straight-through", "sign"],
)
def test_others_are_not(f: Callable[..., Tensor]) -> None:
    assert not warned(f)
