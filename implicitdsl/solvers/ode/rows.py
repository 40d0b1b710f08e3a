"""The rows of an integration that are under way, and what is wrong with rows from the start."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...ground.outcomes import Outcome
from ..problem import Inputs
from .kinks import Kinks
from .problem import OdeProblem
from .trajectory import CONVERGED, RUNNING, Places


@dataclass
class Rows:
    """The rows under way, b of them; (b, 1) in float64 but for y, first (b, N), ids, status (b,) and at (b, K).

    s: where they are, h: the step to try, as parts of their span; 0 where a row is done for. log1, log2: logarithms of
    the errors of the last two steps; most: the largest error so far; limited: steps in a row that stability limits;
    radius: the spectral radius, over the span, as last estimated with certainty; NaN before; stopped: whether some rows
    may have been done for before they came to their end.
    """

    ids: Tensor
    status: Tensor
    t0: Tensor
    span: Tensor
    at: Tensor
    s: Tensor
    h: Tensor
    y: Tensor
    first: Tensor
    log1: Tensor
    log2: Tensor
    most: Tensor
    limited: Tensor
    radius: Tensor
    kinks: Kinks | None = None
    stopped: bool = False

    @property
    def going(self) -> Tensor:
        """Which rows are under way, (b, 1)."""
        return (self.s < 1) & (self.h > 0)

    def take(self, keep: Tensor) -> None:
        """Only these rows from here on."""
        for f in fields(self):
            held = getattr(self, f.name)
            if isinstance(held, Tensor):
                setattr(self, f.name, held.index_select(0, keep))
        self.stopped = False
        if self.kinks is not None:
            self.kinks = self.kinks.take(keep)

    def stop(self, gone: Tensor, why: Tensor) -> None:
        """Rows that go no further."""
        self.status = torch.where(gone[:, 0], why, self.status)
        self.h, self.stopped = torch.where(gone, 0.0, self.h), True


def verdicts(problem: OdeProblem, a: Inputs, y0: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """(status (B,), where each row is (B, 1)) at the start: what is not finite, or asks for times before the start, has
    failed; an empty interval is done. A kink may be at infinity.
    """
    B = y0.shape[0]
    bad = ~(y0.isfinite().all(1) & places.span.isfinite() & places.t0.isfinite() & places.at.isfinite().all(1))
    for x, rank in zip(a[: len(a) - problem.kinks], problem.ranks, strict=False):
        if x.dim() > rank and x.is_floating_point():
            bad = bad | ~x.isfinite().reshape(B, x.shape[1:].numel()).all(1)
    if problem.kinks:
        bad = bad | a[-1].isnan().any(-1)
    still = places.span == 0
    status = torch.where(still, CONVERGED, RUNNING)
    status = torch.where(~bad & (places.at < 0).any(1), int(Outcome.OUTSIDE), status)
    return torch.where(bad, int(Outcome.NOT_FINITE), status), still.double().unsqueeze(1)
