"""What is said of rows that did not reach the end of their interval."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ground.outcomes import Outcome
from ..solvers.ode.trajectory import CONVERGED, Ended
from .failure import Failures, announce


def describe(status: Tensor, time: Tensor, where: str) -> str:
    """One line: how many rows, the first of them, where it stopped and why."""
    failed = status != CONVERGED
    first = int(failed.to(torch.int64).argmax())
    place = f"{where}: " if where else ""
    advice = Outcome(int(status[first])).advice
    return (
        f"[IMP801] {place}{int(failed.sum())} of {status.numel()} samples did not reach the end of the interval; "
        f"sample {first} stopped at t = {float(time[first]):.6g}: {advice}"
    )


def report_unfinished(ended: Ended, failures: Failures) -> Ended:
    """Apply the policy to an integration; under `nan` the states of failed rows are NaN. One host sync."""
    if torch.compiler.is_compiling():
        y = _report_unfinished(ended.y, ended.status, ended.time, *failures.named())
        return ended._replace(y=y)
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


@torch.library.custom_op("implicitdsl::report_unfinished", mutates_args=())
def _report_unfinished(y: Tensor, status: Tensor, time: Tensor, policy: str, where: str) -> Tensor:
    good = status == CONVERGED
    if bool(good.all()):
        return y.clone()
    announce(describe(status, time, where), Failures(policy, where))
    return torch.where(good.view(-1, 1, 1), y, torch.nan) if policy == "nan" else y.clone()


def _pass(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    return g, None, None, None, None


_report_unfinished.register_autograd(_pass)


@_report_unfinished.register_fake
def _unfinished_like(y: Tensor, status: Tensor, time: Tensor, policy: str, where: str) -> Tensor:
    return torch.empty_like(y)
