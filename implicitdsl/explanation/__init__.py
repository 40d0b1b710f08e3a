"""Floor 5: what was derived, proved and decided for a layer, as text, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from implicitdsl.ir.function import Functions
from implicitdsl.ir.plan import Plan

from . import render
from .compose import compose

FORMATS = ("text", "markdown", "latex")


def explain(
    plan: Plan | Sequence[Plan],
    functions: Functions,
    format: str = "text",
    sizes: Mapping[str, int | None] | None = None,
) -> str:
    """Equations, residual, backward equation and gradients, proofs, choices with reasons, shapes and counts.

    `format` is "text", "markdown" (formulas in `$$`) or "latex" (a document); the last two import SymPy. `sizes` turn
    counts into numbers. Several plans (the layers of a file) give one document. Raises ValueError for another format.
    """
    if format not in FORMATS:
        raise ValueError(f"no format {format!r}: text, markdown or latex")
    known = {name: size for name, size in (sizes or {}).items() if size is not None}
    plans = (plan,) if isinstance(plan, Plan) else plan
    documents = [compose(p, functions, known) for p in plans]
    if format == "text":
        return "\n".join(map(render.text, documents))
    from .latex import Latex

    math = Latex(functions)
    if format == "markdown":
        return "\n".join(render.markdown(d, math) for d in documents)
    return render.latex(documents, math)


__all__ = ["FORMATS", "explain"]
