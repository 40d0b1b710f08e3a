"""One separable `argmin` at run time: coefficients by autograd, a sort, closed-form derivatives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.separable import separable_optimum
from implicitdsl.families.call import Call, kind_of
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.verdict import Solved

from .block import report, shaped
from .samples import Ranked, mark, screened

P, Q, LOW, HIGH, A = range(5)
"""What the generated function returns for an unknown; and b at last."""


@dataclass(frozen=True)
class Share:
    """The multiplier of a label: that of the `side` (LOW, HIGH) of unknown number `at`, or of the coupling row (A)."""

    key: str
    side: int
    at: int
    factor: float


@dataclass(frozen=True)
class SeparableRecipe:
    """All that is known of a block before tensors come.

    `parts` are (kind, unknown) of the outputs of the generated function in order; `equality`: how the row couples.
    """

    program: Program
    call: Call
    unknowns: tuple[tuple[str, tuple[int, ...]], ...]
    parts: tuple[tuple[int, int], ...]
    coupled: bool
    equality: bool
    duals: tuple[Share, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    failures: Failures
    given: tuple[Ranked, ...]


class SeparableBlock:
    """Runs a recipe. Stateless; pickles."""

    def __init__(self, recipe: SeparableRecipe) -> None:
        self.recipe = recipe

    @property
    def texts(self) -> tuple[str, ...]:
        """The generated source."""
        return (self.recipe.program.text,)

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        """See `lowering.layer.BlockRunner`. The solve is in float64, whatever the inputs are."""
        recipe = self.recipe
        kind = kind_of(values)
        clean, lost = screened(values, recipe.given)
        p, q, low, high, a, b = self._coefficients(clean, functions)
        try:
            found = separable_optimum(recipe.failures, recipe.equality, p, q, low, high, a, b, lost)
        except ConvergenceError as error:
            if isinstance(error.solution, Solved):
                bad = error.solution
                nothing = torch.full_like(bad.z, torch.nan)
                unpacked = self._unpacked(bad.z, nothing, nothing, nothing[:, :1], batch, kind)
                error.solution = unpacked, report(bad, None, batch, "projection")
            raise
        once = torch.ones_like(found.status)
        solved = Solved(found.z, found.status, once, found.residual, once)
        state = [found.z, found.below, found.above, found.nu.unsqueeze(-1)]
        if recipe.failures.policy == "nan":
            state = mark(state, solved, values, recipe.given)
        made = report(solved, found.weak, batch, "projection") if want_report else None
        z, below, above, nu = state
        return self._unpacked(z, below, above, nu, batch, kind), made

    def _coefficients(
        self, values: Mapping[str, Tensor], functions: Mapping[str, Bound]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """All as (B, n), b as (B,), in float64; a bound that is not there is infinite."""
        recipe = self.recipe
        call = recipe.call
        given = [values[name] for name in call.inputs]
        found = recipe.program[call.name](*given, *(functions[f] for f in call.opaques))
        outputs = [t.double() for t in (found if isinstance(found, tuple) else (found,))]
        b = outputs.pop() if recipe.coupled else None
        parts: dict[tuple[int, int], Tensor] = {}
        sizes = [] if b is None or b.ndim == 0 else [b.shape[0]]
        for (side, at), t in zip(recipe.parts, outputs, strict=True):
            core = len(recipe.unknowns[at][1])
            flat = t.flatten(-core) if core else t.unsqueeze(-1)
            parts[side, at] = flat
            sizes += flat.shape[:-1]
        like, rows = outputs[0], sizes[0] if sizes else 1

        def joined(side: int, absent: float) -> Tensor:
            pieces: list[Tensor] = []
            for at, (_, shape) in enumerate(recipe.unknowns):
                size = math.prod(shape)
                piece = parts.get((side, at))
                piece = like.new_full((size,), absent) if piece is None else piece
                pieces.append(piece.expand(rows, size))
            return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)

        a = joined(A, 0.0) if recipe.coupled else None
        b = None if b is None else b.expand(rows)
        return joined(P, 1.0), joined(Q, 0.0), joined(LOW, -torch.inf), joined(HIGH, torch.inf), a, b

    def _unpacked(
        self, z: Tensor, below: Tensor, above: Tensor, nu: Tensor, batch: int | None, kind: torch.dtype
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        shared = z.shape[0] == 1 and batch != 1
        found: dict[str, Tensor] = {}
        slices: list[slice] = []
        at = 0
        for name, shape in recipe.unknowns:
            slices.append(slice(at, at + math.prod(shape)))
            found[name] = shaped(z[:, slices[-1]], shape, shared, kind)
            at += math.prod(shape)
        shapes = dict(recipe.shapes)
        totals: dict[str, Tensor] = {}
        for share in recipe.duals:
            whole = nu if share.side == A else (below if share.side == LOW else above)[:, slices[share.at]]
            value = share.factor * whole
            totals[share.key] = totals[share.key] + value if share.key in totals else value
        for key, value in totals.items():
            found[key] = shaped(value, shapes[key], shared, kind)
        return found
