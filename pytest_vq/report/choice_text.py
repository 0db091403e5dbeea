"""A choice as text: predicted beside measured, for every scheme that was built."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pytest_vq.report.text import plain_table
from pytest_vq.schema.choice import Choice, ChoiceRequest, Contender
from pytest_vq.schema.recipe import ChoiceFigures, Wish
from pytest_vq.schema.spec import scheme_name
from pytest_vq.wording import between, size, times

_NONE = "-"
_SHOWN = 5  # layers given back


def choice_text(request: ChoiceRequest, choice: Choice, written: str | None) -> str:
    """What was chosen for ``request`` and why, and how to measure the recipe in the file ``written``."""
    return "\n".join(_lines(request, choice, written))


def _lines(request: ChoiceRequest, choice: Choice, written: str | None) -> Iterator[str]:
    wish = request.wish
    yield f"{request.model}, {wish.execution}, batch {wish.batch}: the least {wish.target} with {_budget(wish)}"
    yield ""
    headers = ["scheme", "layers", "SQNR", "measured", *(["top-1 of FP32's"] if _has_top1(choice) else [])]
    headers += ["speedup", "measured", "95 % interval", "size", "measured", *(["peak"] if _has_peak(choice) else [])]
    yield plain_table([_row(own, choice) for own in choice.contenders], [*headers, "budget"])
    yield ""
    yield 'Columns before "measured" are predicted from single layers; fidelity is measured on held-out inputs.'
    yield from (f"not to be had: {reason}" for reason in choice.refused)
    if choice.reverted:
        more = f" and {len(choice.reverted) - _SHOWN} more" if len(choice.reverted) > _SHOWN else ""
        yield f"given back to FP32 on held-out inputs: {', '.join(choice.reverted[:_SHOWN])}{more}"
    if choice.recipe is None:
        yield f"chosen: nothing: {choice.why}"
        return
    yield f"chosen: {choice.chosen}: {choice.why}"
    if written is not None:
        scheme = scheme_name(f"recipe:{written}", wish.execution)
        yield f"recipe: {written}; measure it with pytest --vq-models {request.model} --vq-precisions {scheme}"


def _budget(wish: Wish) -> str:
    if wish.min_sqnr_db is not None:
        return f"at least {wish.min_sqnr_db:g} dB"
    return f"at least {wish.min_top1:g} of FP32's accuracy"


def _row(own: Contender, choice: Choice) -> list[str]:
    predicted, figures = own.predicted, own.figures
    cells = [own.name, own.words, _shown(predicted.sqnr_db, _decibels), _shown(figures.sqnr_db, _decibels)]
    if _has_top1(choice):
        cells.append(_shown(figures.top1, "{:.4f}".format))
    cells += [_shown(predicted.speedup, times), _shown(figures.speedup, times), _interval(figures)]
    cells += [_shown(predicted.model_size_bytes, size), _shown(figures.model_size_bytes, size)]
    if _has_peak(choice):
        cells.append(_shown(figures.peak_memory_bytes, size))
    return [*cells, "kept" if own.within else "over"]


def _interval(figures: ChoiceFigures) -> str:
    return between(figures.speedup_low, figures.speedup_high, times) or _NONE


def _decibels(value: float) -> str:
    return f"{value:.1f} dB"


def _shown(value: float | None, words: Callable[[float], str]) -> str:
    return _NONE if value is None else words(value)


def _has_top1(choice: Choice) -> bool:
    return any(own.figures.top1 is not None for own in choice.contenders)


def _has_peak(choice: Choice) -> bool:
    return any(own.figures.peak_memory_bytes is not None for own in choice.contenders)
