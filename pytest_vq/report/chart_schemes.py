"""How schemes look in charts: a precision has a colour and a shape, an execution the bars beside that shape. Pure.

Shapes alone tell schemes apart, so that nobody has to tell colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_vq.schema.spec import EAGER

# These keep their looks whatever else a run measured; a precision or execution of the user's own gets a later one.
_PRECISIONS = ("fp32", "fp16", "int8", "int4", "tf32", "bf16", "fp8", "int8dyn", "int8wo", "int4wo")
_EXECUTIONS = (EAGER, "compile", "graph", "compile+graph")
# SVG paths in the units of Vega's own symbols: about 1 from the middle to the edge. Bars: left, right, above, below.
_BARS = ("M-1.7,-1.1V1.1", "M1.7,-1.1V1.1", "M-1.1,-1.7H1.1", "M-1.1,1.7H1.1")
_OUTER, _INNER = 1.3, 0.55  # of the star


@dataclass(frozen=True, slots=True)
class SchemeKind:
    """What a scheme's look follows from."""

    precision: str
    execution: str


def _star() -> str:
    places = [(math.pi * corner / 5, _INNER if corner % 2 else _OUTER) for corner in range(10)]
    corners = [f"{radius * math.sin(turn):.2f},{-radius * math.cos(turn):.2f}" for turn, radius in places]
    return f"M{'L'.join(corners)}Z"


_SHAPES = (
    "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",  # a circle
    "M-0.9,-0.9H0.9V0.9H-0.9Z",  # a square
    "M0,-1.1L1.1,0.9H-1.1Z",  # a triangle that points up
    "M0,-1.3L1.3,0L0,1.3L-1.3,0Z",  # a diamond
    "M-1.3,0.6A1.3,1.3,0,0,1,1.3,0.6Z",  # half a disc
    "M0,1.1L1.1,-0.9H-1.1Z",  # a triangle that points down
    "M1.1,0L-0.9,1.1V-1.1Z",  # to the right
    _star(),
    "M-0.4,-1.2H0.4V-0.4H1.2V0.4H0.4V1.2H-0.4V0.4H-1.2V-0.4H-0.4Z",  # a cross
    "M-1,-1.1H1L-1,1.1H1Z",  # an hourglass
    "M-1.1,0L0.9,1.1V-1.1Z",  # a triangle that points to the left
    "M-1.1,-1L1.1,1V-1L-1.1,1Z",  # a bow tie
)


def scheme_shapes(kinds: Sequence[SchemeKind]) -> list[str]:
    """The symbol of each scheme, as an SVG path."""
    precisions = _places([kind.precision for kind in kinds], _PRECISIONS)
    executions = _places([kind.execution for kind in kinds], _EXECUTIONS)
    return [
        _SHAPES[precision % len(_SHAPES)] + "".join(bar for bit, bar in enumerate(_BARS) if execution >> bit & 1)
        for precision, execution in zip(precisions, executions, strict=True)
    ]


def scheme_colours(kinds: Sequence[SchemeKind], colours: Sequence[str]) -> list[str]:
    """One of ``colours`` for each scheme: that of its precision."""
    return [colours[place % len(colours)] for place in _places([kind.precision for kind in kinds], _PRECISIONS)]


def _places(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """The place of each name among the known ones and, behind those, the others in their order."""
    order = list(dict.fromkeys([*known, *names]))
    return [order.index(name) for name in names]
