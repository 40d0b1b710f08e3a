"""The steps that were taken, taken again by differentiable operations: what autograd and every transform may act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transformed

from ..problem import Inputs
from .kinks import Kinks, kinks_of, within
from .method import Method
from .problem import OdeProblem
from .trajectory import Taken, interpolate


class Segment(NamedTuple):
    """Steps of one method. nodes (B, S + 1): parts of the span between which the steps lie, float64; where a row took
    no step the node is repeated.
    """

    method: Method
    nodes: Tensor


def segments(entries: Sequence[Taken], methods: Sequence[Method], rows: int, device: torch.device) -> list[Segment]:
    """The steps of a tape, one segment a method (with one node where it took none)."""
    found: list[Segment] = []
    node = torch.zeros(rows, dtype=torch.float64, device=device)
    for method in methods:
        nodes = [node]
        for e in entries:
            if e.method is not method:
                continue
            end = e.end[:, 0]
            node = end if e.ids is None else node.index_copy(0, e.ids, end)
            nodes.append(node)
        found.append(Segment(method, torch.stack(nodes, 1)))
    return found


def replay(
    problem: OdeProblem, taken: Sequence[Segment], a: Inputs, y0: Tensor, t0: Tensor, ts: Tensor, at: Tensor
) -> Tensor:
    """States (B, K, N) at the times ts (B, K), which lie at the parts `at` of the span; the last of them ends it.

    Differentiable in a, y0, t0 and ts to any order: steps stay the same parts of the span, but for those that end at a
    kink and move with it.
    Cost: every step once more, with memory for all of them; finished rows are carried along.
    """
    begin, times = t0.double(), ts.double()
    furthest = (at >= 1).to(torch.int64).argmax(1, keepdim=True)
    span = times.gather(1, furthest)[:, 0] - begin
    inner = at.shape[1] > 1
    kinks = kinks_of(problem, a, begin.detach(), span.detach())
    y = y0
    out = y0.unsqueeze(1).expand(y0.shape[0], at.shape[1], y0.shape[1])
    if transformed() or bool((at <= 0).any()):
        out = _at_start(problem, taken[0].method, a, y0, begin, times, at, span)
    for method, nodes in taken:
        steps = nodes.shape[1] - 1
        if steps == 0:
            continue
        s = nodes[:, 0]
        piece = _piece(problem, kinks, s, span, y)
        first = method.first(piece, (begin + s * span).to(y.dtype), y, a)
        for j in range(steps):
            end = node = nodes[:, j + 1]
            if inner and method.interpolant is None:  # an output time is where this step ends
                hit = (at == node.unsqueeze(1)) & (at < 1)
                end = _there(times, hit, node, begin, span)
            if kinks is not None:
                times_of = a[-1].double().expand_as(kinks.times)
                end = _there(times_of, kinks.at(node.unsqueeze(1)), end, begin, span)
            h = (end - s).unsqueeze(1)
            t, H = (begin + s * span).to(y.dtype), (h * span.unsqueeze(1)).to(y.dtype)
            step = method.smooth(piece, a, t, H, y, first)
            moved = nodes[:, j + 1] > nodes[:, j]
            if inner:
                mask = (at > nodes[:, j : j + 1]) & (at <= nodes[:, j + 1 : j + 2]) & (at < 1)
                value = step.y.unsqueeze(1)
                if method.interpolant is None and kinks is not None:  # the step may have moved with a kink instead
                    gap = times - (begin + end * span).unsqueeze(1)
                    value = value + (gap - gap.detach()).unsqueeze(-1).to(y.dtype) * step.last.unsqueeze(1)
                elif method.interpolant is not None:
                    assert step.K is not None
                    gone = (times - begin.unsqueeze(1)) - (s * span).unsqueeze(1)
                    theta = (gone / torch.where(mask, h * span.unsqueeze(1), 1.0)).to(y.dtype)
                    theta = torch.where(mask, theta, 0.0)
                    weights = interpolate(method.interpolant, theta.reshape(-1), y).unflatten(1, theta.shape)
                    value = y.unsqueeze(1) + torch.einsum("sbk,sbn->bkn", weights, step.K)
                out = torch.where(mask.unsqueeze(-1), value, out)
            y = torch.where(moved.unsqueeze(1), step.y, y)
            last = step.last
            if kinks is not None:
                piece = _piece(problem, kinks, node, span, y)
                beyond = method.first(piece, (begin + end * span).to(y.dtype), y, a)
                last = torch.where(kinks.at(node.unsqueeze(1)).any(1, keepdim=True), beyond, last)
            first = torch.where(moved.unsqueeze(1), last, first)
            s = end
    reached = at >= 1 if not inner else (at >= 1) | ((at > 0) & (at > _last(taken).unsqueeze(1)))
    return torch.where(reached.unsqueeze(-1), y.unsqueeze(1), out)


def _piece(problem: OdeProblem, kinks: Kinks | None, s: Tensor, span: Tensor, y: Tensor) -> OdeProblem:
    """The problem between the kinks around the step that begins at s (B,)."""
    sides = None if kinks is None else kinks.sides(s.unsqueeze(1), span.detach().unsqueeze(1), y.dtype)
    return within(problem, sides)


def _there(times: Tensor, hit: Tensor, end: Tensor, begin: Tensor, span: Tensor) -> Tensor:
    """end (B,), or where a time is hit (B, K) the part of the span at which that lies, to be differentiated."""
    time = times.gather(1, hit.to(torch.int64).argmax(1, keepdim=True))[:, 0]
    time = torch.where(time.isfinite(), time, 0.0)
    return torch.where(hit.any(1), (time - begin) / torch.where(span == 0, 1.0, span), end)


def _at_start(
    problem: OdeProblem, method: Method, a: Inputs, y0: Tensor, begin: Tensor, times: Tensor, at: Tensor, span: Tensor
) -> Tensor:
    """States (B, K, N) at times that are the first: y0 in value, with derivatives by times from steps of length 0."""
    B, K = at.shape
    H = torch.where(at <= 0, times - begin.unsqueeze(1), 0.0).to(y0.dtype).reshape(B * K, 1)
    t, y = begin.to(y0.dtype).repeat_interleave(K), y0.repeat_interleave(K, 0)
    mine = tuple(x.repeat_interleave(K, 0) if x.dim() > r else x for x, r in zip(a, problem.ranks, strict=True))
    start, length = (x.detach().repeat_interleave(K) for x in (begin, span))
    piece = _piece(problem, kinks_of(problem, mine, start, length), torch.zeros_like(start), length, y)
    return method.smooth(piece, mine, t, H, y, method.first(piece, t, y, mine)).y.view(B, K, y0.shape[1])


def _last(taken: Sequence[Segment]) -> Tensor:
    """Where each row stopped."""
    return taken[-1].nodes[:, -1]
