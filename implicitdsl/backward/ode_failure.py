"""What is said of rows that did not reach the end of their interval."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ground.outcomes import Outcome
from ..solvers.carries import operator, where_any
from ..solvers.ode.trajectory import CONVERGED, Ended
from .failure import Failures, announce

ADVICE = {
    Outcome.DIVERGED: "the solution grows without bound, or its rates are not finite there; it may end there, or steps "
    "of a fixed size are too long: take more, or a method that adapts them",
    Outcome.OUTSIDE: "a time is asked for that lies before the beginning of the interval",
}
"""Where what is said of iterations does not fit."""


def describe(status: Tensor, time: Tensor, where: str) -> str:
    """One line: how many rows, the first of them, where it stopped and why."""
    failed = status != CONVERGED
    first = int(failed.to(torch.int64).argmax())
    place = f"{where}: " if where else ""
    outcome = Outcome(int(status[first]))
    advice = ADVICE.get(outcome, outcome.advice)
    return (
        f"[IMP801] {place}{int(failed.sum())} of {status.numel()} samples did not reach the end of the interval; "
        f"sample {first} stopped at t = {float(time[first]):.6g}: {advice}"
    )


def report_unfinished(ended: Ended, failures: Failures) -> Ended:
    """Apply the policy to an integration; under `nan` the states of failed rows are NaN. One host sync."""
    if torch.compiler.is_compiling():
        named = failures.named()
        every = ~ended.converged, ended.status, ended.time.detach()
        lost = where_any(every[0], lambda failed, s, t: _report_unfinished(failed, s, t, *named), *every)
        return ended._replace(y=torch.where(lost.view(-1, 1, 1), torch.nan, ended.y))
    good = ended.converged
    if bool(good.all()):
        return ended
    announce(describe(ended.status, ended.time, failures.where), failures, ended)
    if failures.policy == "nan":
        ended = ended._replace(
            y=torch.where(good.view(-1, 1, 1), ended.y, torch.nan), end=torch.where(good[:, None], ended.end, torch.nan)
        )
    return ended


def report_drift(drift: Tensor, cotangent: Tensor, good: Tensor, failures: Failures, how: str) -> Tensor:
    """Announce rows whose states were not found again on the way back (drift (B,) above 1), so that their gradient is
    not to be trusted; `cotangent` (B, N) with NaN there under `nan`. One host sync.
    """
    lost = ~(drift <= 1) & good
    if not bool(lost.any()):
        return cotangent
    place = f"{failures.where}: " if failures.where else ""
    first = int(lost.to(torch.int64).argmax())
    announce(
        f"[IMP802] {place}{how} backwards and missed where they came from in {int(lost.sum())} of {lost.numel()} "
        f"samples, first sample {first}: its gradient is not to be trusted; use `backward checkpointed`",
        failures,
    )
    return torch.where(lost.unsqueeze(1), torch.nan, cotangent) if failures.policy == "nan" else cotangent


def _called_unfinished(failed: Tensor, status: Tensor, time: Tensor, policy: str, where: str) -> Tensor:
    """The rows of which nothing is handed on."""
    if bool(failed.any()):
        announce(describe(status, time, where), Failures(policy, where))
    return failed.clone() if policy == "nan" else torch.zeros_like(failed)


def _unfinished_like(failed: Tensor, status: Tensor, time: Tensor, policy: str, where: str) -> Tensor:
    return torch.empty_like(failed)


_report_unfinished = operator(
    "report_unfinished(Tensor failed, Tensor status, Tensor time, str policy, str where) -> Tensor",
    _called_unfinished,
    _unfinished_like,
)
