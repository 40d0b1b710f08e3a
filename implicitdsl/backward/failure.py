"""What happens to samples that were not solved: warn, raise or NaN. Never silence."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ground.errors import ConvergenceError, ConvergenceWarning
from ..ground.outcomes import Outcome
from ..solvers.carries import operator, where_any
from ..solvers.verdict import CONVERGED, NOT_FINITE, SINGULAR, Solved

POLICIES = ("warn", "raise", "nan")


@dataclass(frozen=True)
class Failures:
    """Policy for failed samples, and `where` they are to be looked for (the equation's file:line).

    warn  one `ConvergenceWarning` a solve; values stay as they are, cotangents of singular samples count as zero
    raise `ConvergenceError` with the `Solved` attached (forward), likewise in the backward pass
    nan   as warn, and the rows of z (forward) and of per-sample gradients (backward) are filled with NaN

    `marks`: whether the solve itself fills the latter. Not so where some of its inputs were computed from others, also
    from shared ones: then `marked` fills those of the inputs that were given.
    """

    policy: str = "warn"
    where: str = ""
    marks: bool = True
    singular: str = "singular backward system"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"on_failure is one of {', '.join(POLICIES)}, not {self.policy!r}")

    def named(self) -> tuple[str, str]:
        """Policy and place, as operators take them."""
        return self.policy, self.where


def announce(message: str, failures: Failures, solution: Any = None) -> None:
    """Raise or warn as the policy says."""
    if failures.policy == "raise":
        raise ConvergenceError(message, solution)
    warnings.warn(message, ConvergenceWarning, stacklevel=2)


def describe(status: Tensor, residual: Tensor, where: str) -> str:
    """One line on the rows that are not solved: how many, the worst residual and its index, the advice, the place."""
    failed = (status != CONVERGED) & (status != SINGULAR)
    residual = residual.masked_fill(status == NOT_FINITE, torch.nan)  # whatever was put in place of such a sample
    size = torch.where(failed, residual.nan_to_num(nan=torch.inf), -torch.inf)
    worst = int(size.argmax())
    advice = Outcome(int(status[worst])).advice
    place = f"{where}: " if where else ""
    return (
        f"[IMP801] {place}{int(failed.sum())} of {status.numel()} samples did not converge; worst residual "
        f"{float(residual[worst]):.3g} at sample {worst}: {advice}"
    )


def report_unsolved(solved: Solved, failures: Failures) -> Solved:
    """Apply the policy to a forward solve; under `nan` the failed rows of z are NaN. One host sync."""
    if torch.compiler.is_compiling():
        named = failures.named()
        every = solved.z, solved.status, solved.residual
        z = where_any(~solved.converged, lambda z, s, r: _report_unsolved(z, s, r, *named), *every)
        return solved._replace(z=z)
    if solved.all_converged():
        return solved
    good = solved.converged
    if bool(good.all()):
        return solved
    announce(describe(solved.status, solved.residual, failures.where), failures, solved)
    if failures.policy == "nan":
        solved = solved._replace(z=torch.where(good.unsqueeze(-1), solved.z, torch.nan))
    return solved


def report_singular(
    singular: Tensor, failures: Failures, what: str | None = None, witness: Tensor | None = None
) -> Tensor:
    """Announce singular samples (IMP802) and hand the mask back. One host sync.

    `witness`: a tensor without which it is too early to speak (a cotangent), so that a compiler keeps the order.
    """
    what = failures.singular if what is None else what
    if torch.compiler.is_compiling():
        named = failures.named()
        if witness is None:
            return where_any(singular, lambda s: _report_singular(s, s, what, *named), singular)
        return where_any(singular, lambda s, w: _report_singular(s, w, what, *named), singular, witness)
    if bool(singular.any()):
        place = f"{failures.where}: " if failures.where else ""
        first = int(singular.flatten().int().argmax())
        announce(
            f"[IMP802] {place}{what} in {int(singular.sum())} of {singular.numel()} samples, first at sample {first}; "
            "the implicit derivative does not exist there and its contribution is set to zero",
            failures,
        )
    return singular


def _called_unsolved(z: Tensor, status: Tensor, residual: Tensor, policy: str, where: str) -> Tensor:
    solved = Solved(z, status, status, residual, status)
    return report_unsolved(solved, Failures(policy, where)).z.clone()


def _unsolved_like(z: Tensor, status: Tensor, residual: Tensor, policy: str, where: str) -> Tensor:
    return torch.empty_like(z)


_report_unsolved = operator(
    "report_unsolved(Tensor z, Tensor status, Tensor residual, str policy, str where) -> Tensor",
    _called_unsolved,
    _unsolved_like,
)


def _called_singular(singular: Tensor, witness: Tensor, what: str, policy: str, where: str) -> Tensor:
    return report_singular(singular, Failures(policy, where), what).clone()


def _singular_like(singular: Tensor, witness: Tensor, what: str, policy: str, where: str) -> Tensor:
    return torch.empty_like(singular)


_report_singular = operator(
    "report_singular(Tensor singular, Tensor witness, str what, str policy, str where) -> Tensor",
    _called_singular,
    _singular_like,
)
