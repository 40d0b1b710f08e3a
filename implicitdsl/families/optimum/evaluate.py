"""The coefficients of a program as tensors: matrices in closed form, or products with them evaluated on a basis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from implicitdsl.families.call import Call
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.source import Program


@dataclass(frozen=True)
class Bands:
    """Where the entries of banded matrices are found in few products: that of `probes[i]` has the entries of all those
    columns of which it is the sum, and which have no row in common (Curtis, Powell & Reid 1974).

    P[rows, columns] = (P probesᵀ)[rows, probe] for each of the triples, likewise C; all other entries are zero.
    """

    probes: Tensor
    P: tuple[Tensor, Tensor, Tensor]
    C: tuple[Tensor, Tensor, Tensor]

    def spread(self, found: Tensor, where: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The matrix (…, m, n) of its products (…, m, probes)."""
        rows, columns, probe = (t.to(found.device) for t in where)
        values = found[..., rows, probe]
        m, n = found.shape[-2], self.probes.shape[-1]
        flat = found.new_zeros(*found.shape[:-2], m * n)
        return flat.scatter(-1, (rows * n + columns).expand_as(values), values).unflatten(-1, (m, n))


@dataclass(frozen=True)
class Evaluate:
    """`call` gives [P,] q[, C, d]; with `columns` it gives q[, d], and `columns(v, …)` the products [P v,] [C v]."""

    program: Program
    call: Call
    columns: Call | None
    curved: bool
    constrained: bool
    size: int
    bands: Bands | None = None

    def __call__(
        self, values: Mapping[str, Tensor], functions: Mapping[str, Bound]
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """P (or None), q, C, d in float64, each with a batch dimension where what it is computed of has one."""
        found = self.program[self.call.name](*self._given(self.call, values, functions))
        parts = [t.double() for t in (found if isinstance(found, tuple) else (found,))]
        matrices = self._matrices(values, functions)
        P = (matrices or parts).pop(0) if self.curved else None
        q = parts.pop(0)
        if not self.constrained:
            return P, q, q.new_zeros(0, self.size), q.new_zeros(0)
        C = (matrices or parts).pop(0)
        return P, q, C, parts.pop(0)

    def _matrices(self, values: Mapping[str, Tensor], functions: Mapping[str, Bound]) -> list[Tensor]:
        """P and C by their columns, in one call for all basis vectors, or for fewer where they are banded."""
        if self.columns is None:
            return []
        given = self._given(self.columns, values, functions)
        like = next(t for t in values.values() if t.is_floating_point()) if values else torch.empty(0)
        bands = self.bands
        basis = torch.eye(self.size) if bands is None else bands.probes
        basis = basis.to(dtype=like.dtype, device=like.device)

        def products(v: Tensor) -> tuple[Tensor, ...]:
            found = self.program[self.columns.name](v, *given) if self.columns is not None else ()
            return found if isinstance(found, tuple) else (found,)

        found = torch.func.vmap(products)(basis)
        made = [t.movedim(0, -1).double() for t in found]
        if bands is None:
            return made
        places = [where for where, there in ((bands.P, self.curved), (bands.C, self.constrained)) if there]
        return [bands.spread(t, where) for t, where in zip(made, places, strict=True)]

    def _given(self, call: Call, values: Mapping[str, Tensor], functions: Mapping[str, Bound]) -> list[object]:
        return [*(values[name] for name in call.inputs), *(functions[f] for f in call.opaques)]
