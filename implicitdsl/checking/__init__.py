"""Floor 3: names, kinds, shapes and the structure of systems; a syntax tree becomes an `ir.Model`."""

from .layers import Checked, check

__all__ = ["Checked", "check"]
