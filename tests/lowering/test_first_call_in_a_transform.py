"""A layer that learns its dimensions inside of a transform keeps nothing that belongs to the transform."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.func import jacrev, vmap

import implicitdsl as imp

LAYERS = (
    "layer M(n):\n  given C in Sym(n)\n  argmin_{X in PSD(n)} tr(C X) subject to diag(X) = 1\n  return X",
    "layer N(n):\n  given C in R^(n, n)\n  argmin_{x in R^n} ||C x - 1||^2 + ||x||\n  return x",
    "layer E(n):\n  given C in R^(n, n)\n  find z in R^n such that z = tanh(0.1 C z + 1)\n  return z",
)


@pytest.mark.parametrize("text", LAYERS)
def test_it_pickles_and_differentiates_afterwards(text: str) -> None:
    layer = imp.compile(text)
    C = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]], dtype=torch.float64, requires_grad=True)
    J = vmap(jacrev(layer))(C.detach())
    again = pickle.loads(pickle.dumps(layer))
    (g,) = torch.autograd.grad(again(C).sum(), C)
    torch.testing.assert_close(g, J.flatten(1, -3).sum(1), rtol=1e-8, atol=1e-10)
