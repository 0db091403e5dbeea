"""Figures in words: units and rounding in one place, changes, and what differs between two environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_vq.schema.estimates import Estimates

TO_KEEP_IT = (
    "; to keep it, accept it as the new anchor (pytest-vq baselines accept)"  # ends the reason of an improvement
)


def figure(value: float) -> str:
    """Four digits, and never in powers of ten: ``0.1234``, ``12.34``, ``12345``."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def percent(fraction: float) -> str:
    """A signed change, ``+11.7 %``."""
    return f"{100 * fraction:+.1f} %"


def plain_percent(fraction: float) -> str:
    """An unsigned share, ``3 %``."""
    return f"{100 * fraction:.3g} %"


def milliseconds(value: float) -> str:
    """A time of three significant digits or more, ``75.1 ms``."""
    return f"{_three_digits(value)} ms" if value < 999.5 else f"{value:,.0f} ms"


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".removesuffix(".")  # 161 would be "161."


def times(value: float) -> str:
    """A speedup, ``1.44x``."""
    return f"{_three_digits(value)}x"


def size(count: float) -> str:
    """A number of bytes in the largest unit that keeps it readable, ``12.5 MiB``."""
    if abs(count) >= 1024**2:
        return f"{count / 1024**2:,.1f} MiB"
    return f"{count / 1024:.1f} KiB" if abs(count) >= 1024 else f"{count:.0f} B"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """``1 process``, ``15 processes``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def differences(before: Estimates, now: Estimates) -> str:
    """What differs between two processes' environments, ``torch 2.12.0 → 2.13.0``; empty when nothing does."""
    names = sorted({*before.versions, *now.versions})
    changed = [(n, before.versions.get(n), now.versions.get(n)) for n in names]
    parts = [f"{n} {old or 'absent'} → {new or 'absent'}" for n, old, new in changed if old != new]
    if before.device_uuid != now.device_uuid:
        parts.append(f"device {before.device_uuid} → {now.device_uuid}")
    return ", ".join(parts)


def listed(names: Sequence[str], most: int) -> str:
    """The first of ``names``, and how many more there are: ``a, b, c and 4 more``."""
    further = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + further


def between(low: float | None, high: float | None, shown: Callable[[float], str]) -> str:
    """``9.9 ms … 10.1 ms``, each end as ``shown`` has it; empty where there is no interval."""
    return "" if low is None or high is None else f"{shown(low)} … {shown(high)}"


def interval(low: float, high: float) -> str:
    """``95 % interval +9.8 … +13.6 %``."""
    return f"95 % interval {100 * low:+.1f} … {100 * high:+.1f} %"
