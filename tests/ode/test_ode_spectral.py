"""Linear equations whose matrix is a number times a symmetric constant: one eigendecomposition, kept between calls."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import implicitdsl as imp

HEAT = """layer Heat(n):
  given u0 in R^n, k in R, T in R
  const L in R^(n, n) = zeros
  find u(t) in R^n for t in [0, T] such that du/dt = -k (L u) / 2, u(0) = u0
  return u(T), u(0)
"""
FORCED = """layer Forced(n):
  given u0 in R^n, b in R^n
  param k in R = 0.7
  const L in R^(n, n) = zeros
  find u(t) in R^n for t in [0, 1.5] such that du/dt = k (L u) + b, u(0) = u0
"""
LITERAL = """layer Decay(n):
  given u0 in R^n
  param k in R = 0.7
  find u(t) in R^n for t in [0, 2] such that du/dt = -3 k u, u(0) = u0
"""
N = 4


def laplacian(n: int = N) -> Tensor:
    """With free ends, so that one eigenvalue is 0."""
    L = 2 * torch.eye(n, dtype=torch.float64) - torch.ones(n - 1).diag(1) - torch.ones(n - 1).diag(-1)
    L[0, 0] = L[-1, -1] = 1
    return L


def built(text: str, L: Tensor | None = None) -> Any:
    layer: Any = imp.compile(text, n=N).double()
    if L is not None:
        layer.L = L
    return layer


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def decompositions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts eigendecompositions."""
    found: list[int] = []
    plain = torch.linalg.eigh

    def counted(*args: Any) -> Any:
        found.append(1)
        return plain(*args)

    monkeypatch.setattr(torch.linalg, "eigh", counted)
    return found


def test_value_and_derivatives(decompositions: list[int]) -> None:
    layer, L = built(HEAT, laplacian()), laplacian()
    u0, k, T = numbers(3, N), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)
    exact = torch.einsum("bij,bj->bi", torch.linalg.matrix_exp(-0.5 * T * k.view(3, 1, 1) * L), u0)
    torch.testing.assert_close(layer(u0, k, T)[0], exact, rtol=1e-13, atol=1e-13)
    assert decompositions
    given = tuple(x.requires_grad_() for x in (u0, k, T))
    assert torch.autograd.gradcheck(layer, given, rtol=1e-7, atol=1e-8)
    assert torch.autograd.gradgradcheck(layer, given, rtol=1e-6, atol=1e-7)


def test_further_terms_with_a_singular_matrix(decompositions: list[int]) -> None:
    layer, L = built(FORCED, -laplacian()), -laplacian()
    u0, b = numbers(3, N), numbers(N, seed=1)
    whole = torch.zeros(N + 1, N + 1, dtype=torch.float64)
    k = layer.get_parameter("k")
    whole[:N, :N], whole[:N, N] = k.detach() * L, b
    exact = (torch.linalg.matrix_exp(1.5 * whole) @ torch.cat([u0, torch.ones(3, 1)], 1).T).T[:, :N]
    torch.testing.assert_close(layer(u0, b), exact, rtol=1e-13, atol=1e-13)
    assert decompositions

    def of(u0: Tensor, b: Tensor, value: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"k": value}, (u0, b))

    given = tuple(x.detach().requires_grad_() for x in (u0, b, k))
    assert torch.autograd.gradcheck(of, given, rtol=1e-7, atol=1e-8)
    assert torch.autograd.gradgradcheck(of, given, rtol=1e-6, atol=1e-7)


def test_a_matrix_of_literals(decompositions: list[int]) -> None:
    layer, u0 = built(LITERAL), numbers(3, N)
    torch.testing.assert_close(layer(u0), u0 * torch.exp(-6 * layer.get_parameter("k")))
    assert len(decompositions) == 1


def test_it_is_kept_until_the_constant_changes(decompositions: list[int]) -> None:
    layer = built(HEAT, laplacian())
    one = torch.ones((), dtype=torch.float64)

    def right(layer: Any, L: Tensor, seed: int) -> bool:
        u0 = numbers(2, N, seed=seed)
        return torch.allclose(layer(u0, one, one)[0], u0 @ torch.linalg.matrix_exp(-0.5 * L), atol=1e-13)

    assert all(right(layer, laplacian(), seed) for seed in range(3))
    assert len(decompositions) == 1
    layer.L = 2 * laplacian()
    assert right(layer, 2 * laplacian(), 0)
    with torch.no_grad():
        layer.get_buffer("L").mul_(1.5)
    assert right(layer, 3 * laplacian(), 1)
    layer.load_state_dict({"L": laplacian()})
    assert right(layer, laplacian(), 2)
    assert len(decompositions) == 4
    assert right(copy.deepcopy(layer), laplacian(), 3)
    assert right(pickle.loads(pickle.dumps(layer)), laplacian(), 4)


def test_other_constants_take_the_exponential(decompositions: list[int]) -> None:
    L = laplacian() + 0.3 * torch.ones(N, N, dtype=torch.float64).triu()
    layer, one, u0 = built(HEAT, L), torch.ones((), dtype=torch.float64), numbers(2, N)
    torch.testing.assert_close(layer(u0, one, one)[0], u0 @ torch.linalg.matrix_exp(-0.5 * L).mT)
    assert not decompositions


def test_transforms_agree() -> None:
    layer, u0 = built(HEAT, laplacian()), numbers(3, N)
    k, T = torch.tensor(0.8, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64)
    plain = torch.autograd.functional.jacobian(lambda k: layer(u0, k, T)[0], k)
    torch.testing.assert_close(torch.func.jacrev(lambda k: layer(u0, k, T)[0])(k), plain)
    torch.testing.assert_close(torch.func.jacfwd(lambda k: layer(u0, k, T)[0])(k), plain)
    mapped = torch.func.vmap(lambda u: layer(u, k, T)[0])(u0)
    torch.testing.assert_close(mapped, layer(u0, k, T)[0])


def test_float32_of_a_stiff_equation() -> None:
    n = 100
    L = laplacian(n) * (n + 1) ** 2
    layer: Any = imp.compile(HEAT, n=n)
    layer.L = L.float()
    u0 = numbers(2, n)
    exact = u0 @ torch.linalg.matrix_exp(-0.005 * L)
    found = layer(u0.float(), torch.tensor(1.0), torch.tensor(0.01))[0]
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)
