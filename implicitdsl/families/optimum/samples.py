"""Samples that cannot be solved: kept out of what the batch shares, and marked in their own inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from implicitdsl.backward.marking import marked
from implicitdsl.backward.rules import plain
from implicitdsl.solvers.verdict import Solved

Ranked = tuple[str, int]
"""An input and its core rank."""


def screened(values: Mapping[str, Tensor], inputs: Sequence[Ranked]) -> tuple[Mapping[str, Tensor], Tensor | None]:
    """The values with the samples that are not finite replaced by one that is, and which those are, (B,) or None.

    Coefficients are computed of all samples together: 0 · NaN in a backward pass would reach what they share.
    """
    if not plain():  # a transform maps or differentiates: nothing can be asked of the numbers
        return values, None
    batched = [(name, values[name]) for name, rank in inputs if values[name].ndim > rank]
    if torch.compiler.is_compiling():
        return _screened(values, batched)
    lost: Tensor | None = None
    for _, t in batched:
        if not math.isfinite(t.detach().sum().item()):  # one pass; a sum may overflow, so then look closely
            here = ~t.detach().isfinite().reshape(len(t), -1).all(-1)
            lost = here if lost is None else lost | here
    if lost is None or not bool(lost.any()) or bool(lost.all()):
        return values, None
    sound = int((~lost).int().argmax())
    made = dict(values)
    for name, t in batched:
        made[name] = torch.where(lost.view(-1, *(1,) * (t.ndim - 1)), t[sound].detach(), t)
    return made, lost


def _screened(
    values: Mapping[str, Tensor], batched: Sequence[tuple[str, Tensor]]
) -> tuple[Mapping[str, Tensor], Tensor | None]:
    """The same in a compiled graph, which asks nothing of the numbers."""
    if not batched:
        return values, None
    finite = [t.detach().isfinite().reshape(len(t), -1).all(-1) for _, t in batched]
    lost = ~torch.stack(finite).all(0)
    sound = (~lost).int().argmax().reshape(1)
    made = dict(values)
    for name, t in batched:
        made[name] = torch.where(lost.view(-1, *(1,) * (t.ndim - 1)), t.detach().index_select(0, sound), t)
    return made, lost


def mark(
    found: Sequence[Tensor], solved: Solved, values: Mapping[str, Tensor], inputs: Sequence[Ranked]
) -> list[Tensor]:
    """Under the policy `nan`: the tensors (B, k) as they are, whose backward pass marks the inputs of lost samples."""
    given = [values[name] for name, rank in inputs if values[name].ndim > rank]
    state = marked(torch.cat(list(found), -1), solved, given)
    return list(state.split([t.shape[-1] for t in found], -1))
