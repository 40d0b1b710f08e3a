"""Programs over the semidefinite cone: closed forms, CVXPY, gradients in every mode, failures."""

from __future__ import annotations

import pickle

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap

import implicitdsl as imp
from implicitdsl.solvers.optimum.cones import Cones, svec_matrix

D = torch.float64


def symmetric(*shape: int, seed: int = 0) -> Tensor:
    G = torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))
    return G + G.mT


MAXCUT = """layer MaxCut(n):
  given C in Sym(n)
  argmin_{X in PSD(n)} tr(C X) subject to d: diag(X) = 1
  return X, dual(d)
"""


def test_relaxed_cut_against_cvxpy() -> None:
    layer = imp.compile(MAXCUT)
    C = symmetric(3, 5, 5)
    X, d = layer(C)
    torch.testing.assert_close(X.diagonal(dim1=-2, dim2=-1), torch.ones(3, 5, dtype=D), rtol=1e-9, atol=1e-9)
    for i in range(3):
        V = cp.Variable((5, 5), PSD=True)
        value = cp.Problem(cp.Minimize(cp.trace(C[i].numpy() @ V)), [cp.diag(V) == 1]).solve(solver="CLARABEL")
        assert float((C[i] * X[i]).sum()) == pytest.approx(value, abs=1e-6)
        np.testing.assert_allclose(X[i].numpy(), V.value, atol=1e-3)
        slack = C[i] + torch.diag(d[i])  # stationarity: C + diag(ν) = Z ⪰ 0 with Z X = 0
        assert float(torch.linalg.eigvalsh(slack)[0]) > -1e-8
        torch.testing.assert_close(slack @ X[i], torch.zeros(5, 5, dtype=D), atol=1e-7, rtol=0)


def test_gradients_in_every_mode() -> None:
    layer = imp.compile(MAXCUT)
    C = symmetric(2, 4, 4, seed=1)
    f = lambda C: layer(C / 2 + C.mT / 2)[0]
    assert torch.autograd.gradcheck(f, C.requires_grad_(), atol=1e-7)
    expected = torch.stack([jacrev(f)(c) for c in C.detach()])
    for mode in (jacrev, jacfwd):
        torch.testing.assert_close(vmap(mode(f))(C.detach()), expected, rtol=1e-7, atol=1e-8)


def test_second_derivatives() -> None:
    """Those of ‖X‖², against differences of gradients, in forward mode and by double backward."""
    layer = imp.compile(MAXCUT)
    C, v, h = symmetric(2, 4, 4, seed=1), symmetric(4, 4, seed=7), 1e-5
    one = lambda C: layer(C / 2 + C.mT / 2)[0].square().sum()
    H, gradient = vmap(hessian(one))(C), jacrev(one)
    for i in range(2):
        expected = (gradient(C[i] + h * v) - gradient(C[i] - h * v)) / (2 * h)
        torch.testing.assert_close(torch.einsum("ijkl,kl->ij", H[i], v), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(vmap(jacfwd(jacfwd(one)))(C), H, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradgradcheck(one, C.requires_grad_(), atol=1e-6)


def test_projections_have_derivatives_of_every_order() -> None:
    """Where no eigenvalue is zero; equal ones do no harm."""
    cones = Cones(0, 0, (3,))
    w = torch.stack([symmetric(3, 3, seed=3).flatten() @ svec_matrix(3).T, torch.ones(6, dtype=D)])
    w[1, [1, 3, 4]] = 0.0  # the identity
    w.requires_grad_()
    for f in (cones.project, cones.slope):
        assert torch.autograd.gradcheck(f, w)
        assert torch.autograd.gradgradcheck(f, w)


def test_projection_on_the_cone() -> None:
    """The nearest semidefinite matrix keeps the positive eigenvalues."""
    layer = imp.compile("layer P(n):\n  given Y in Sym(n)\n  argmin_{X in PSD(n)} ||X - Y||_F^2\n")
    Y = symmetric(3, 4, 4, seed=2)
    values, V = torch.linalg.eigh(Y)
    torch.testing.assert_close(layer(Y), (V * values.clamp(min=0).unsqueeze(-2)) @ V.mT, rtol=1e-8, atol=1e-8)
    assert torch.autograd.gradcheck(lambda Y: layer((Y + Y.mT) / 2), Y.requires_grad_(), atol=1e-7)


def test_a_linear_matrix_inequality() -> None:
    """max t with A − t I ⪰ 0 is the smallest eigenvalue."""
    text = """layer Smallest(n):
  given A in Sym(n)
  argmax_{t in R} t subject to A - t I(n) >> 0
"""
    layer = imp.compile(text)
    A = symmetric(3, 4, 4, seed=3).requires_grad_()
    t = layer(A)
    torch.testing.assert_close(t, torch.linalg.eigvalsh(A)[:, 0], rtol=1e-8, atol=1e-8)
    (g,) = torch.autograd.grad(t.sum(), A)
    v = torch.linalg.eigh(A.detach()).eigenvectors[..., 0]
    torch.testing.assert_close(g, v.unsqueeze(-1) * v.unsqueeze(-2), rtol=1e-7, atol=1e-7)


def test_failures_and_copies() -> None:
    """X ⪰ 0 with diagonal d: impossible where an entry is negative; the others are untouched."""
    text = "layer M(n):\n  given C in Sym(n), d in R^n\n  argmin_{X in PSD(n)} tr(C X) subject to diag(X) = d\n"
    layer = imp.compile(text)
    C = symmetric(3, 3, 3)
    d = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [torch.nan, 1.0, 1.0]], dtype=D)
    with pytest.warns(imp.ConvergenceWarning, match="2 of 3"):
        sol = layer.solve(C, d)
    assert sol.report.converged.tolist() == [True, False, False]
    torch.testing.assert_close(sol.value[0], layer(C[0], d[0]), rtol=1e-8, atol=1e-8)
    single = pickle.loads(pickle.dumps(layer))(C[0].float(), d[0].float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), sol.value[0], rtol=1e-4, atol=1e-4)


def test_cones_project_and_vectorise() -> None:
    R = svec_matrix(3)
    torch.testing.assert_close(R @ R.T, torch.eye(6, dtype=D))
    A, B = symmetric(3, 3, seed=4), symmetric(3, 3, seed=5)
    torch.testing.assert_close((R @ A.flatten()) @ (R @ B.flatten()), (A * B).sum())
    cones = Cones(1, 2, (3,))
    w = torch.randn(2, cones.size, dtype=D, generator=torch.Generator().manual_seed(6))
    s = cones.project(w)
    torch.testing.assert_close(cones.project(s), s, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(((s - w) * s).sum(-1), torch.zeros(2, dtype=D), atol=1e-12, rtol=0)  # Moreau
    assert torch.autograd.gradcheck(cones.project, w.requires_grad_(), atol=1e-8)
