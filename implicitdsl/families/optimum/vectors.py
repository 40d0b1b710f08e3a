"""Programs over cones as vectors: symmetric matrices by triangle, unknowns and multipliers by name."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from implicitdsl.solvers.optimum.cones import Cones, svec_matrix

from .block import Rows, named_parts, shaped, triangles


class Vectorised(Protocol):
    """What the recipes of `conic` and `convex` share.

    `unknowns` are names and shapes, of which the `symmetric` are solved for by triangle; `rows` are those of all
    constraints, `count` together, in the order of `cones`, of which the `matrices`, by first row and order, are
    symmetric; `duals`: the key and the label of each multiplier asked for.
    """

    @property
    def unknowns(self) -> tuple[tuple[str, tuple[int, ...]], ...]: ...
    @property
    def symmetric(self) -> tuple[bool, ...]: ...
    @property
    def rows(self) -> tuple[Rows, ...]: ...
    @property
    def count(self) -> int: ...
    @property
    def matrices(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def duals(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def cones(self) -> Cones: ...


class Vectors:
    """Two constant matrices in float64: the unknowns are `columns` x, the rows of the problem `rows` times those of the
    constraints. States are [x, w], with multipliers Π(w) − w.
    """

    def __init__(self, recipe: Vectorised) -> None:
        self.recipe = recipe
        parts = [
            svec_matrix(shape[0]).T if flat else torch.eye(math.prod(shape), dtype=torch.float64)
            for (_, shape), flat in zip(recipe.unknowns, recipe.symmetric, strict=True)
        ]
        self.columns = torch.block_diag(*parts)
        self.rows = triangles(recipe.count, recipe.matrices)
        if recipe.cones.second:
            _ = recipe.cones.padded  # made here, as what is made within a transform belongs to it

    def unpacked(self, state: Tensor, batch: int | None, kind: torch.dtype) -> dict[str, Tensor]:
        """The unknowns by name, and the multipliers that are asked for."""
        recipe = self.recipe
        shared = state.shape[0] == 1 and batch != 1
        n = self.columns.shape[1]
        z = state[:, :n] @ self.columns.mT.to(state.device)
        found = named_parts(z, recipe.unknowns, shared, kind)
        if recipe.duals:
            w = state[:, n:]
            y = (recipe.cones.project(w) - w) @ self.rows.to(state.device)
            for key, label in recipe.duals:
                mine = [r for r in recipe.rows if r.label == label]
                total = torch.stack([r.sign * y[:, r.start : r.stop : r.step] for r in mine]).sum(0)
                found[key] = shaped(total, mine[0].shape, shared, kind)
        return found
