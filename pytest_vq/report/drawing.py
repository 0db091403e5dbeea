"""Draws specifications as PNG and SVG, in this process and without a network. Pure."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from pytest_vq.errors import MissingExtraError

_LIBRARIES = ("altair", "jinja2", "vl_convert")  # imported where they are used: they take a second to load
_SHARP = 2.0  # pixels of a PNG for one of the specification
_MOST_PX = 16_000  # a side of a PNG at most, which what shows pictures still takes
_TAG = re.compile(r"<[^>]*>")
_FINE_DIGITS = re.compile(r"(\.[0-9]{2})[0-9]+")
_SIZE = re.compile(rb'<svg[^>]*? width="([0-9.]+)" height="([0-9.]+)"')


def require_drawing() -> None:
    """Raise MissingExtraError where a library that reports are made with is not installed."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"a report is made with libraries that are not installed ({', '.join(missing)}): "
            "pip install 'pytest-vq[report]'"
        )


def draw_svg(specification: dict[str, Any]) -> bytes:
    """The drawing of ``specification`` as SVG, as small as it can be; whatever that names, nothing is fetched for it.

    Words about each mark are left out: nobody hears them in an image, and they are half of it. So are digits beyond a
    hundredth of a pixel.
    """
    import vl_convert

    without_words = specification | {"config": specification.get("config", {}) | {"aria": False}}
    svg = vl_convert.vegalite_to_svg(without_words, allowed_base_urls=[])
    return _TAG.sub(lambda tag: _FINE_DIGITS.sub(r"\1", tag.group(0)), svg).encode()


def draw_png(svg: bytes) -> bytes:
    """The PNG of a drawing by `draw_svg`, which is not drawn a second time for it."""
    import vl_convert

    return vl_convert.svg_to_png(svg.decode(), scale=min(_SHARP, _MOST_PX / max(1.0, *svg_size(svg))))


def svg_size(svg: bytes) -> tuple[float, float]:
    """Width and height in pixels of a drawing by `draw_svg`; 0 where it does not say."""
    found = _SIZE.search(svg)
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)
