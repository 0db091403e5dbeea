"""What all charts share: colours that colour-blind readers tell apart, and how text looks.

Pure. The font is one that the renderer brings along, so that a chart looks the same wherever it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
THEMES = ("light", "dark")
# Okabe and Ito's colours, and two of Paul Tol's that keep their distance from those; a precision each.
_COLOURS_LIGHT = (
    *("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#8a6d00", "#2f94cc", "#7b3294", "#882255", "#117733"),
)
_COLOURS_DARK = (
    *("#c8c8c8", "#56b4e9", "#e69f00", "#2fcf9f", "#e19ac2"),
    *("#f0e442", "#8ab8ff", "#c79be0", "#ff8f8f", "#a5d66f"),
)


@dataclass(frozen=True, slots=True)
class ChartTheme:
    """The colours of one theme."""

    name: str
    ground: str
    ink: str
    faint: str  # text of less weight
    lines: str
    slower: str  # the ends and the middle of the heatmap's scale
    neutral: str
    faster: str
    on_colour: str  # text on one of the ends
    schemes: tuple[str, ...]  # a precision's colour each
    likeness: tuple[str, str]  # from the least faithful to the most

    def on_heat(self, ratio: float, extent: float) -> str:
        """The colour of text that reads best on the heatmap's colour of ``ratio``, its scale ending at ``extent``."""
        end = self.slower if ratio < 1 else self.faster
        share = min(1.0, abs(math.log(ratio)) / math.log(extent))
        ground = [a + share * (b - a) for a, b in zip(_rgb(self.neutral), _rgb(end), strict=True)]
        return max((self.ink, self.on_colour), key=lambda text: _contrast(_rgb(text), ground))


def _rgb(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def _contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The contrast of two colours as the accessibility guidelines (WCAG) define it, 1 ... 21."""
    low, high = sorted(_luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Sequence[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


LIGHT = ChartTheme(
    name="light",
    ground="#ffffff",
    ink="#1f2328",
    faint="#59636e",
    lines="#d1d9e0",
    slower="#b35806",
    neutral="#f7f7f7",
    faster="#2166ac",
    on_colour="#ffffff",
    schemes=_COLOURS_LIGHT,
    likeness=("#fdae61", "#2b1a6e"),
)
DARK = ChartTheme(
    name="dark",
    ground="#0d1117",
    ink="#e6edf3",
    faint="#9198a1",
    lines="#3d444d",
    slower="#f0a04b",
    neutral="#22272e",
    faster="#6cb6ff",
    on_colour="#0d1117",
    schemes=_COLOURS_DARK,
    likeness=("#f28e2b", "#b9d9ff"),
)


def chart_theme(name: str) -> ChartTheme:
    """The theme called ``light`` or ``dark``. Raises ValueError for any other."""
    for theme in (LIGHT, DARK):
        if theme.name == name:
            return theme
    raise ValueError(f"{name!r} is no theme; there are {' and '.join(THEMES)}")


def finish_chart(
    chart: alt.TopLevelMixin, theme: ChartTheme, drawn: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The specification of ``chart`` in the colours of ``theme``, with what it draws by name.

    It is checked against Vega-Lite's schema, all but its rows.
    """
    specification: dict[str, Any] = chart.to_dict()
    datasets = {**specification.get("datasets", {}), **drawn}
    return specification | {"datasets": datasets, "background": theme.ground, "padding": 12, "config": _config(theme)}


def _config(theme: ChartTheme) -> dict[str, Any]:
    text = {"labelColor": theme.ink, "titleColor": theme.ink, "labelFontSize": 12, "titleFontSize": 12}
    weight = {"titleFontWeight": "normal"}
    return {
        "font": FONT,
        "axis": text
        | weight
        | {
            "labelLimit": 340,
            "titleColor": theme.faint,
            "titlePadding": 8,
            "gridColor": theme.lines,
            "domainColor": theme.lines,
            "tickColor": theme.lines,
        },
        # Vega would leave out what comes after 30 symbols.
        "legend": text | weight | {"labelLimit": 240, "titleColor": theme.faint, "symbolSize": 90, "symbolLimit": 0},
        "title": {
            "anchor": "start",
            "frame": "bounds",
            "color": theme.ink,
            "fontSize": 15,
            "subtitleColor": theme.faint,
            "subtitleFontSize": 12,
            "offset": 14,
            "subtitlePadding": 6,
        },
        "text": {"color": theme.ink, "fontSize": 12},
        "view": {"stroke": None},
    }
