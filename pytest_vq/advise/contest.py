"""Plans that were built and measured on held-out inputs, and which of them is the best."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pytest_vq.advise.plans import Forecast, Plan
from pytest_vq.advise.probing import Tell
from pytest_vq.advise.workshop import Answered, Workshop
from pytest_vq.errors import MeasurementError
from pytest_vq.measure.workload import Workload
from pytest_vq.schema.choice import Contender
from pytest_vq.schema.figures import present
from pytest_vq.schema.recipe import ChoiceFigures, Wish
from pytest_vq.schema.spec import EAGER
from pytest_vq.wording import between, size, times

_DECISIVE = 3  # times the seconds of a build for the comparison that decides
_ABOVE_RESOLUTION = 4  # peaks below so many times what the device resolves are told by what is stored instead


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan with what was expected and measured of it; ``within`` is whether it keeps the budget."""

    name: str
    plan: Plan
    predicted: ChoiceFigures
    figures: ChoiceFigures
    within: bool

    @property
    def contender(self) -> Contender:
        """It as a row of a table."""
        return Contender(self.name, self.plan.words, self.predicted, self.figures, self.within)


def keeps_budget(shop: Workshop, plan: Plan) -> bool:
    """Whether ``plan`` answers held-out inputs as well as was wished for."""
    with shop.placed(plan.mix, shop.wish.execution) as workload:
        return _is_within(shop.wish, shop.answered(workload, shop.held_out))


def measure_plan(shop: Workshop, name: str, plan: Plan, forecast: Forecast) -> Measured:
    """``plan`` built, and measured on held-out inputs and in turns with FP32."""
    needs_memory = shop.wish.target == "memory"
    if needs_memory:
        shop.device.memory.mark()
    with shop.placed(plan.mix, shop.wish.execution) as workload:
        answered = shop.answered(workload, shop.held_out)
        peak_bytes = _peak_bytes(shop, workload) if needs_memory else None
        paired = shop.time_beside_fp32(workload)
    figures = ChoiceFigures(
        sqnr_db=answered.sqnr_db,
        top1=answered.top1,
        latency_ms=paired.subject_ms,
        speedup=paired.speedup.value,
        speedup_low=paired.speedup.low,
        speedup_high=paired.speedup.high,
        model_size_bytes=answered.size_bytes,
        peak_memory_bytes=peak_bytes,
    )
    if plan.is_fp32 and shop.wish.execution == EAGER:  # it is what the others are compared with
        figures = replace(figures, sqnr_db=None, speedup=1.0, speedup_low=1.0, speedup_high=1.0)
    predicted = forecast.figures(plan, paired.other_ms)
    return Measured(name, plan, predicted, figures, _is_within(shop.wish, answered))


def _peak_bytes(shop: Workshop, workload: Workload) -> int | None:
    workload.request()  # the timed one, after others that may take more
    return shop.device.memory.measure(workload.request, workload.prepared.recorded).peak_bytes


def _is_within(wish: Wish, answered: Answered) -> bool:
    if wish.min_sqnr_db is not None:
        return answered.sqnr_db >= wish.min_sqnr_db
    return present(answered.top1) >= present(wish.min_top1)


@dataclass(slots=True)
class Contest:
    """Measures plans as they enter, the uniform ones first, and says which is the best."""

    shop: Workshop
    forecast: Forecast
    tell: Tell
    entered: list[Measured] = field(default_factory=list)

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """All that were measured, for a table."""
        return tuple(own.contender for own in self.entered)

    def enter(self, name: str, plan: Plan) -> Measured:
        """Measure ``plan``. Raises PrecisionError or OutputError where it cannot be had or compared."""
        measured = measure_plan(self.shop, name, plan, self.forecast)
        self.entered.append(measured)
        self.tell(f"measured {name}: {plan.words}")
        return measured

    def winner(self, mixed: Measured | None) -> tuple[Measured, str]:
        """The best within the budget, and why. ``mixed`` has to be clearly better than each uniform scheme."""
        uniform = [own for own in self.entered if own.within and own is not mixed]
        if not uniform:
            raise MeasurementError("not even FP32 keeps the budget on held-out inputs, run as was asked for")
        best = min(uniform, key=self._key)
        if mixed is None or not mixed.within:
            why = "no mixed choice is expected to be better" if mixed is None else "the mixed choice is over the budget"
            return best, f"{why} than {best.name} for every layer"
        if self.shop.wish.target == "latency":
            return self._faster(best, mixed)
        return self._smaller(best, mixed)

    def _key(self, own: Measured) -> float:
        if self.shop.wish.target == "latency":
            return -present(own.figures.speedup)
        return float(self._bytes(own))

    @property
    def _has_peaks(self) -> bool:
        """Whether peaks are to be compared: they were measured, and lie well above what the device resolves."""
        peaks = [own.figures.peak_memory_bytes or 0 for own in self.entered]
        return min(peaks) >= _ABOVE_RESOLUTION * self.shop.device.memory.resolution_bytes

    def _bytes(self, own: Measured) -> int:
        figures = own.figures
        return int(present(figures.peak_memory_bytes if self._has_peaks else figures.model_size_bytes))

    def _faster(self, best: Measured, mixed: Measured) -> tuple[Measured, str]:
        execution = self.shop.wish.execution
        with self.shop.placed(best.plan.mix, execution) as other, self.shop.placed(mixed.plan.mix, execution) as own:
            found = self.shop.time_beside(other.request, own, _DECISIVE).speedup
        words = f"timed in turns with {best.name} for every layer, the mixed choice is {times(found.value)} as fast"
        if found.low is not None and found.high is not None:
            words += f" (95 % interval {between(found.low, found.high, times)})"
        if (found.value if found.low is None else found.low) > 1:
            return mixed, words
        return best, f"{words}: not clearly faster, so the uniform scheme stands"

    def _smaller(self, best: Measured, mixed: Measured) -> tuple[Measured, str]:
        of_best, of_mixed = self._bytes(best), self._bytes(mixed)
        what = "peak memory" if self._has_peaks else "stored size"
        words = f"{what} {size(of_mixed)} for the mixed choice, {size(of_best)} for {best.name} in every layer"
        resolution = self.shop.device.memory.resolution_bytes if self._has_peaks else 0
        if of_mixed + resolution < of_best:
            return mixed, words
        return best, f"{words}: not clearly smaller, so the uniform scheme stands"
