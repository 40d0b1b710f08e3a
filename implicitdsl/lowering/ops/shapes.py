"""Joining, reshaping and placing tensors whose leading dimensions may differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def lift(x: Tensor, inner: int) -> Tensor:
    """A new axis of length one before the last `inner` dimensions; nothing to do where nothing precedes them."""
    return x.unsqueeze(-1 - inner) if x.dim() > inner else x


def repeat(x: Tensor, rank: int, count: int) -> Tensor:
    """The value `count` times along a new first core axis."""
    lead = x.shape[: x.dim() - rank]
    return x.unsqueeze(-1 - rank).expand(*lead, count, *x.shape[x.dim() - rank :])


def broadcast(leads: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The common leading dimensions. `torch.broadcast_shapes` costs 20 µs, and mostly they are equal or absent."""
    found: tuple[int, ...] = ()
    for lead in leads:
        if lead and lead != found:
            found = tuple(torch.broadcast_shapes(found, lead)) if found else lead
    return found


def _aligned(parts: Sequence[Tensor], rank: int) -> list[Tensor]:
    """The parts with equal leading dimensions; core shapes stay their own."""
    if all(p.shape == parts[0].shape for p in parts):
        return list(parts)
    leads = [tuple(p.shape[: p.dim() - rank]) for p in parts]
    common = broadcast(leads)
    return [
        p if lead == common else p.expand(*common, *p.shape[p.dim() - rank :])
        for p, lead in zip(parts, leads, strict=True)
    ]


def concat(parts: Sequence[Tensor], rank: int) -> Tensor:
    """Joined along the first core axis; `rank` ≥ 1 is the core rank of every part."""
    return torch.cat(_aligned(parts, rank), dim=-rank)


def stack(parts: Sequence[Tensor], rank: int) -> Tensor:
    """Joined along a new first core axis; `rank` is the core rank of the parts."""
    return torch.stack(_aligned(parts, rank), dim=-1 - rank)


def reshape(x: Tensor, rank: int, shape: Sequence[int]) -> Tensor:
    """Another core shape with as many elements, row-major."""
    return x.reshape(*x.shape[: x.dim() - rank], *shape)


def embed(g: Tensor, shape: Sequence[int], items: Sequence[int | slice]) -> Tensor:
    """Zeros of core shape `shape` with g placed at `items`: the adjoint of indexing.

    Padding, because unlike a write in place it is the same under every transform.
    """
    rank = len(shape)
    for axis in range(len(items) - 1, -1, -1):
        if not isinstance(items[axis], slice):
            g = g.unsqueeze(axis - rank)
    pads: list[int] = []
    for axis in range(rank - 1, -1, -1):
        item = items[axis] if axis < len(items) else slice(0, shape[axis])
        lo, hi = (item.start, item.stop) if isinstance(item, slice) else (item, item + 1)
        pads += [lo, shape[axis] - hi]
    return torch.nn.functional.pad(g, pads)
