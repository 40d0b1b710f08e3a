"""Transposes take over what the steps have computed: the same gradients, and nothing is evaluated twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import implicitdsl as imp
from implicitdsl.backward import ode_propagators
from implicitdsl.families.ode import recipe as recipes
from implicitdsl.lowering import ops
from implicitdsl.solvers.ode import trajectory

D = torch.float64
MOVING = """
given x in R^n, k0 in R^n, s in R, ts in R^k
param A in R^(n, n), B in R^(n, n), b in R^n
find z(t) in R^n, e(t) in R for t in [0, 1.5] such that
  dz/dt = 3 A tanh(B z + t b + k0) - s sigmoid(z) * z + abs(t - 0.7) z / 2, de/dt = sum(exp(-z)), z(0) = x, e(0) = 0
using {}
return z(ts), z(1.5), e(1.5)
"""


def points(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def gradients(layer: Any, shared: bool) -> list[Tensor]:
    """Rows of very different speed, so that some are refused and some finish before others."""
    x = (points(9, 3) * torch.logspace(-2, 1, 9, dtype=D).unsqueeze(1)).requires_grad_()
    k0 = points(*(() if shared else (9,)), 3, seed=1).requires_grad_()
    s = torch.linspace(0.1, 30.0, 9, dtype=D).requires_grad_()
    y = layer(x, k0, s, torch.tensor([0.3, 0.9, 1.1], dtype=D))
    total = torch.stack([(points(*v.shape, seed=2) * v).sum() for v in y]).sum()
    return list(torch.autograd.grad(total, (x, k0, s, *layer.parameters())))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "using, room",
    [
        ("dopri5(rtol=1e-6, atol=1e-8)", None),
        ("dopri5(rtol=1e-6, atol=1e-8)", 30000),
        ("tsit5(rtol=1e-6, atol=1e-8, jump_t=[0.7])", None),
        ("dopri8(rtol=1e-6, atol=1e-8), backward checkpointed(budget=4)", None),
        ("rk4(steps=30)", None),
    ],
    ids=["all", "some", "kinks", "budget", "equal"],
)
def test_the_same_gradients(using: str, room: int | None, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all stages are kept, some or none; over refused steps, finished rows, outputs inside, and kinks."""
    layer = imp.compile(MOVING.format(using), n=3, k=3).double()
    if room is not None:
        monkeypatch.setattr(trajectory, "STAGES", room)
    found = gradients(layer, shared)
    monkeypatch.setattr(recipes, "_reuse", lambda recipe: None)
    for mine, plain in zip(found, gradients(layer, shared), strict=True):
        assert torch.allclose(mine, plain, rtol=1e-11, atol=1e-12)


MLP = """
given x in R^n
param W in R^(h, n), b in R^h, V in R^(n, h)
find z(t) in R^n for t in [0, 3] such that dz/dt = V tanh(W z + b), z(0) = x
using dopri5(rtol=1e-6, atol=1e-8)
"""


@pytest.mark.parametrize("together", [False, True])
def test_nothing_is_evaluated_twice(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backwards there are two products with a matrix a stage, and no rate; small steps do with those of two steps."""
    if not together:
        monkeypatch.setattr(ode_propagators, "SMALL", 0)
    layer = imp.compile(MLP, n=4, h=8).double()
    counted = SimpleNamespace(matvec=0, affine=0, vecmat=0, outer_like=0)

    def watch(name: str) -> None:
        run = getattr(ops, name)

        def counting(*args: Any) -> Any:
            setattr(counted, name, getattr(counted, name) + 1)
            return run(*args)

        monkeypatch.setattr(ops, name, counting)

    for name in list(vars(counted)):
        watch(name)
    y = layer(points(1, 4))
    evaluations, steps = counted.affine, (counted.affine - 2) // 6
    assert counted.matvec == evaluations
    assert evaluations == 2 + 6 * steps
    assert steps >= ode_propagators.FEW
    counted.affine = counted.matvec = 0
    y.sum().backward()
    assert counted.vecmat == 2 * 6 * (2 if together else steps)
    assert (counted.affine, counted.matvec) == (1, 1)  # at the first stage of the first step, or of all at once
    assert counted.outer_like <= 2 * steps
