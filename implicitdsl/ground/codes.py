"""The table of diagnostic codes: number, default level, title. Pages with examples: `ground/pages/CODE.md`."""

from __future__ import annotations

from implicitdsl.ground.records import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """A diagnostic code's default level and the title of its page."""

    level: str
    title: str


CODES: dict[str, Code] = {
    "IMP001": Code("error", "expected an operand"),
    "IMP002": Code("error", "`find` lacks `such that`"),
    "IMP003": Code("error", "bracket never closed"),
    "IMP004": Code("error", "text that cannot stand here"),
    "IMP005": Code("error", "unknown character"),
    "IMP006": Code("error", "imported file cannot be read"),
    "IMP012": Code("error", "`'` is neither transpose nor derivative"),
    "IMP015": Code("error", "two `=` in one relation"),
    "IMP016": Code("error", "keyword as a name"),
    "IMP101": Code("error", "unknown name"),
    "IMP102": Code("error", "declared twice"),
    "IMP103": Code("warning", "unused parameter"),
    "IMP104": Code("warning", "unknown that reaches no output"),
    "IMP105": Code("error", "circular definitions"),
    "IMP106": Code("error", "name already used by torch.nn.Module"),
    "IMP107": Code("error", "initial value outside its set"),
    "IMP110": Code("error", "calling a tensor"),
    "IMP111": Code("error", "multiplying a function"),
    "IMP112": Code("error", "wrong number of arguments"),
    "IMP113": Code("error", "name of another kind expected"),
    "IMP120": Code("info", "default filled in"),
    "IMP201": Code("error", "shapes differ"),
    "IMP202": Code("error", "inner dimensions differ"),
    "IMP203": Code("error", "shape cannot be inferred"),
    "IMP204": Code("error", "objective is not scalar"),
    "IMP205": Code("error", "index out of range"),
    "IMP206": Code("error", "wrong rank"),
    "IMP208": Code("error", "elementwise `*` of unequal shapes"),
    "IMP209": Code("error", "a bound module returned another shape"),
    "IMP301": Code("error", "fewer equations than unknowns"),
    "IMP302": Code("error", "more equations than unknowns"),
    "IMP303": Code("error", "equation without unknown"),
    "IMP304": Code("warning", "explicit: no solver needed"),
    "IMP305": Code("info", "splits into smaller systems"),
    "IMP401": Code("info", "contraction"),
    "IMP402": Code("warning", "solver option out of range for this size"),
    "IMP403": Code("warning", "residual not differentiable somewhere"),
    "IMP501": Code("error", "no initial condition"),
    "IMP502": Code("error", "second order lacks the derivative's initial condition"),
    "IMP503": Code("warning", "right-hand side is not C¹"),
    "IMP504": Code("error", "output outside the interval"),
    "IMP505": Code("error", "not linear in dW"),
    "IMP506": Code("error", "boundary condition missing"),
    "IMP507": Code("warning", "backward does not match the forward discretisation"),
    "IMP601": Code("error", "objective is not convex"),
    "IMP602": Code("error", "constraint is not convex"),
    "IMP604": Code("error", "`z^T Q z` needs Q ⪰ 0"),
    "IMP605": Code("warning", "minimiser may be non-unique"),
    "IMP606": Code("error", "equality constraint is not affine"),
    "IMP701": Code("error", "unknown solver"),
    "IMP702": Code("error", "unknown option"),
    "IMP703": Code("error", "solver of another family"),
    "IMP704": Code("error", "option value of the wrong kind"),
    "IMP801": Code("warning", "not converged"),
    "IMP802": Code("warning", "singular backward system"),
    "IMP902": Code("warning", "`a / b c` reads `(a / b) c`"),
    "IMP903": Code("warning", "a name `T` beside `^T`"),
    "IMP904": Code("warning", "a built-in shadowed"),
    "IMP910": Code("info", "sentence not lowered yet"),
    "IMP999": Code("error", "internal error"),
}
