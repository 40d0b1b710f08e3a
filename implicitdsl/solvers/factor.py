"""A batch of factored square matrices: LU, or plain division where the matrix is diagonal or 1 x 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .host import extent


class Factor(NamedTuple):
    """LU factors (*, n, n) with pivots (*, n), as `torch.linalg.lu_factor` packs them; or a diagonal (*, n) and None.

    Where the leading dimensions are absent the whole batch shares one matrix.
    """

    lu: Tensor
    pivots: Tensor | None

    @property
    def diagonal(self) -> Tensor:
        """The pivots' values U_ii, (*, n)."""
        return self.lu if self.pivots is None else self.lu.diagonal(dim1=-2, dim2=-1)

    @property
    def shared(self) -> bool:
        """Whether one matrix serves the whole batch."""
        return self.lu.ndim == (1 if self.pivots is None else 2)

    def solve(self, b: Tensor, transposed: bool = False) -> Tensor:
        """A⁻¹ b, or A⁻ᵀ b, for b (B, n). Cost 2 n² a row."""
        if self.pivots is None:
            return b / self.lu
        if self.shared:
            return substitute(self.lu, self.pivots, b.mT, transposed).mT
        return substitute(self.lu, self.pivots, b.unsqueeze(-1), transposed).squeeze(-1)

    def is_singular(self) -> Tensor:
        """Per matrix: some pivot is below n·eps of the largest (exactly zero or lost in rounding), or not finite."""
        size = self.diagonal.abs()
        if self.pivots is None:  # entries are separate equations, so only an exact zero can be told from a small scale
            tiny = size <= torch.finfo(size.dtype).tiny
            return tiny.any(-1) | ~size.isfinite().all(-1)
        least = size.shape[-1] * torch.finfo(size.dtype).eps * size.amax(-1)
        return ~(size.amin(-1) > least)

    def regular(self) -> bool:
        """Whether no matrix is singular. One host sync; a shared matrix takes fewer operators than `is_singular`."""
        if self.pivots is None or not self.shared:
            return not bool(self.is_singular().any())
        least, largest = extent(self.diagonal.abs())
        return least > self.lu.shape[-1] * torch.finfo(self.lu.dtype).eps * largest

    def perturbed(self, magnitude: Tensor) -> Factor:
        """The factor with lost pivots replaced by ±√eps·max(largest pivot, magnitude), so that solves stay finite.

        The solution then runs along the near-null directions. `magnitude` (B,) is the size to fall back on when the
        whole matrix vanishes.
        """
        d = self.diagonal
        eps = torch.finfo(d.dtype).eps
        largest = d.abs().amax(-1, keepdim=True)
        least = d.shape[-1] * eps * largest
        if self.pivots is None:
            least = torch.full_like(largest, torch.finfo(d.dtype).tiny)
        stand_in = torch.maximum(largest, magnitude.unsqueeze(-1)) * eps**0.5
        fixed = torch.where(d.abs() > least, d, torch.where(d < 0, -stand_in, stand_in))
        if self.pivots is None:
            return Factor(fixed, None)
        return Factor(torch.diagonal_scatter(self.lu, fixed, dim1=-2, dim2=-1), self.pivots)


SAFE = 128
"""Largest matrix that a batched LU of torch is trusted with on several threads."""


def _one_by_one(matrix: Tensor) -> bool:
    """After `torch.set_num_threads` (2.13, MKL) LU of a batch of matrices above 128 × 128 runs on torch's threads and
    on MKL's, which overwrite each other: wrong factors or a hang. A matrix alone has MKL's threads and costs the same.
    """
    return (
        matrix.device.type == "cpu"
        and matrix.shape[-1] > SAFE
        and matrix.ndim > 2
        and not torch.compiler.is_compiling()
        and torch.get_num_threads() > 1
    )


def decompose(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """LU (*, n, n) and pivots (*, n) of a matrix (*, n, n), as `torch.linalg.lu_factor_ex` packs them; never raises."""
    if not _one_by_one(matrix):
        return torch.linalg.lu_factor_ex(matrix)[:2]
    lu, pivots = matrix.new_empty(matrix.shape), matrix.new_empty(matrix.shape[:-1], dtype=torch.int32)
    flat = zip(*(t.reshape(-1, *t.shape[matrix.ndim - 2 :]) for t in (matrix, lu, pivots)), strict=True)
    for one, lu_of, pivots_of in flat:
        lu_one, pivots_one, _ = torch.linalg.lu_factor_ex(one)
        lu_of.copy_(lu_one)
        pivots_of.copy_(pivots_one)
    return lu, pivots


def substitute(lu: Tensor, pivots: Tensor, right: Tensor, transposed: bool = False) -> Tensor:
    """A⁻¹ R, or A⁻ᵀ R, from LU factors (*, n, n) and (*, n), for R (*, n, k) with the same leading dimensions.

    `torch.linalg.lu_solve` (2.13) takes the stride of dimension -3 for that of the batch, so with more than one leading
    dimension, one of them of size 1, it may read foreign numbers and be silently wrong. It gets exactly one here.
    """
    if lu.ndim > 3:
        n, k = right.shape[-2:]
        flat = substitute(lu.reshape(-1, n, n), pivots.reshape(-1, n), right.reshape(-1, n, k), transposed)
        return flat.view(right.shape)
    if _one_by_one(lu) and len(lu):
        rows = [torch.linalg.lu_solve(*one, adjoint=transposed) for one in zip(lu, pivots, right, strict=True)]
        return torch.stack(rows)
    return torch.linalg.lu_solve(lu, pivots, right, adjoint=transposed)


def factorise(matrix: Tensor, diagonal: bool = False) -> Factor:
    """Factor of a matrix (*, n, n), or of a diagonal one given as (*, n). Cost 2/3 n³ a matrix; never raises."""
    if diagonal:
        return Factor(matrix, None)
    if matrix.shape[-1] == 1:
        return Factor(matrix.squeeze(-1), None)
    if matrix.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(f"LU needs float32 or float64, got {matrix.dtype}; cast the inputs or use a matrix-free solver")
    return Factor(*decompose(matrix))


def inverse(matrix: Tensor) -> Tensor:
    """A⁻¹ (*, n, n), differentiable in every mode of torch.func. Cost 2 n³ a matrix; inf or NaN where singular."""
    return each(lambda one: torch.linalg.inv_ex(one)[0], matrix)


def each(function: Callable[[Tensor], Tensor], matrix: Tensor) -> Tensor:
    """function(A) of matrices (*, n, n), by an LU inside: matrix by matrix where a batch is not to be trusted."""
    if not _one_by_one(matrix) or not len(matrix):
        return function(matrix)
    found = torch.stack([function(one) for one in matrix.reshape(-1, *matrix.shape[-2:])])
    return found.view(*matrix.shape[:-2], *found.shape[1:])
