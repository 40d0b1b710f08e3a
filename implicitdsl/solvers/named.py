"""What compiled graphs call by a name: a digest of its content, the same in every process that makes it."""

from __future__ import annotations

import hashlib
import pickle
import uuid
from typing import Any

_NAMED: dict[str, Any] = {}


def digest(content: object) -> str:
    """The name of what is made of `content`; one of its own where that does not pickle (somebody else's solver)."""
    try:
        data = pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError):
        data = uuid.uuid4().bytes
    return hashlib.sha256(data).hexdigest()[:16]


def name(key: str, thing: Any) -> None:
    """From now on graphs find `thing` by `key`."""
    _NAMED[key] = thing


def named(key: str) -> Any:
    """What has this name. Raises RuntimeError for that of another process."""
    if key not in _NAMED:
        raise RuntimeError("this graph solves a program whose layer this process has not compiled from its spec")
    return _NAMED[key]
