"""Which precision each layer of a model should have, by measured time (or bytes), under a budget of noise or accuracy.

The budget is in the model's answers, not in bits: each layer's noise is measured on calibration inputs and adds up in
power, each layer shape's time is measured inside the whole model and adds up too. A choice under the budget less 1.5 dB
is the multiple-choice knapsack, solved by dynamic programming. What is found is built and measured on held-out inputs;
the worst layer is given back to FP32 while the budget is not kept. The best uniform scheme is measured beside it, and
is the answer where the mixed one is not clearly better.

Sources: Dong et al., HAWQ: Hessian AWare Quantization of Neural Networks with Mixed-Precision (arXiv:1905.03696), for
sensitivity a layer at a time; Wang et al., HAQ: Hardware-Aware Automated Quantization with Mixed Precision
(arXiv:1811.08886), for the device's own latency as the cost; NVIDIA's ModelOpt (``mtq.auto_quantize``), for the search
as one over options with a score for each layer, whose cost is effective bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_vq.advise.contest import Contest, Measured, keeps_budget
from pytest_vq.advise.plans import Forecast, Plan, best_plan, uniform_plan
from pytest_vq.advise.probing import Probed, Tell, probe_noise, probe_sizes, probe_times
from pytest_vq.advise.workshop import Workshop, opened
from pytest_vq.errors import OutputError, PrecisionError, SelectionError, first_line
from pytest_vq.execution.schemes import find_scheme, refusal
from pytest_vq.options import Options
from pytest_vq.precision.converted import short_name
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.recipe_precision import PREDICTION_MARGIN_DB, layer_precision
from pytest_vq.schema.choice import Choice
from pytest_vq.schema.recipe import TARGETS, Recipe, Wish
from pytest_vq.schema.spec import FP32, ModelSpec, Target, scheme_name
from pytest_vq.wording import listed

_LATENCY = TARGETS[0]
# Where the wish is one of accuracy: the noise that it allows is searched between these, to a dB.
_CLEAN_DB, _NOISY_DB = 60, 0


def check_wish(wish: Wish, target: Target) -> None:
    """Refuse a wish that cannot be met for what it names.

    Raises:
        SelectionError: no scheme, one that does not exist or that ``target`` cannot run, or no budget or two.
    """
    if (wish.min_sqnr_db is None) == (wish.min_top1 is None):
        raise SelectionError("name one budget: --min-sqnr-db N, or --min-top1 X")
    named = [name for name in wish.schemes if name != FP32]
    if not named:
        raise SelectionError("--schemes names nothing beside fp32 to choose from: give precisions, as int8wo,bf16")
    for name in named:
        if "+" in name:
            raise SelectionError(f"--schemes {name}: give precisions here, and how all of it runs by --execution")
        layer_precision(name)
        scheme = find_scheme(scheme_name(name, wish.execution))
        reason = refusal(scheme, target)
        if reason:
            raise SelectionError(f"{scheme.name} cannot run here: {reason}")


def choose(model: ModelSpec, wish: Wish, options: Options, tell: Tell) -> Choice:
    """The best recipe for ``model`` that fulfils ``wish``; ``tell`` is given a line for each step.

    The wish has been checked (see ``check_wish``).

    Raises:
        SelectionError: accuracy was wished for, and the model has no labelled images.
        VqError: the model cannot be built, measured or compared.
    """
    with opened(model, wish, options) as shop:
        if wish.min_top1 is not None and shop.calibration.labels is None:
            raise SelectionError(f"--min-top1: {model.name} has no labelled images; take --min-sqnr-db")
        precisions = [name for name in dict.fromkeys(wish.schemes) if name != FP32]
        probed = probe_noise(shop, precisions, tell)
        if not probed.shapes:
            raise PrecisionError(f"{model.name} has no linear layer outside its head to choose a precision for")
        sizes = probe_sizes(shop, probed)
        is_of_time = wish.target == _LATENCY
        costs = probe_times(shop, probed, tell) if is_of_time else sizes
        return _Chooser(shop, Forecast(probed, costs, sizes, is_of_time), tell).choose()


@dataclass(frozen=True, slots=True)
class _Chooser:
    shop: Workshop
    forecast: Forecast
    tell: Tell

    @property
    def probed(self) -> Probed:
        """What was measured of layers."""
        return self.forecast.probed

    def choose(self) -> Choice:
        contest = Contest(self.shop, self.forecast, self.tell)
        for name, plan in self._uniform_plans():
            self._enter(contest, name, plan)
        plan, reverted = self._refined(self._best_plan())
        mixed = None
        if all(own.plan != plan for own in contest.entered):
            mixed = contest.enter("mixed", plan)
        chosen, why = contest.winner(mixed)
        refused = [f"{name}: {listed(reasons, 1)}" for name, reasons in self.probed.refused.items() if reasons]
        recipe: Recipe | None = self._recipe(chosen)
        if chosen.plan.is_fp32 and not self._anything_fits(contest):
            recipe, why = None, "nothing but FP32 is within the budget"
        return Choice(recipe, chosen.name, why, contest.contenders, reverted, tuple(refused))

    def _uniform_plans(self) -> list[tuple[str, Plan]]:
        plans = []
        for name in (FP32, *self.probed.precisions):
            rest = short_name(self.shop.device.rest_for(find_precision(name)))
            if rest in self.probed.rest_noise and any(own == name for _, own in self.probed.noise):
                plans.append((name, uniform_plan(name, rest, self.probed)))
        return plans

    def _enter(self, contest: Contest, name: str, plan: Plan) -> None:
        try:
            contest.enter(name, plan)
        except (PrecisionError, OutputError) as error:
            self.probed.refused.setdefault(name, []).append(first_line(error))

    def _best_plan(self) -> Plan:
        wish = self.shop.wish
        if wish.min_sqnr_db is not None:
            return self._best_plan_of(wish.min_sqnr_db + PREDICTION_MARGIN_DB)
        # The least clean one whose answers on the calibration inputs are right often enough.
        clean, noisy, best = _CLEAN_DB, _NOISY_DB, self._best_plan_of(_CLEAN_DB)
        while clean - noisy > 1:
            middle = (clean + noisy) // 2
            plan = self._best_plan_of(middle)
            if plan == best or self._is_right(plan):
                clean, best = middle, plan
            else:
                noisy = middle
        return best

    def _best_plan_of(self, sqnr_db: float) -> Plan:
        plan = best_plan(self.probed, self.forecast.costs, sqnr_db)
        return plan if plan is not None else uniform_plan(FP32, FP32, self.probed)

    def _is_right(self, plan: Plan) -> bool:
        with self.shop.placed(plan.mix, self.shop.wish.execution) as workload:
            answered = self.shop.answered(workload, self.shop.calibration)
        self.tell(f"accuracy with {plan.words}: {answered.top1 or 0:.4f} of FP32's")
        return answered.top1 is not None and answered.top1 >= (self.shop.wish.min_top1 or 0)

    def _refined(self, plan: Plan) -> tuple[Plan, tuple[str, ...]]:
        """``plan`` with its noisiest layers in FP32 until it keeps the budget on held-out inputs; and those layers."""
        reverted: list[str] = []
        while not plan.is_fp32:
            if keeps_budget(self.shop, plan):
                return plan, tuple(reverted)
            others = {name: own for name, own in plan.layers.items() if own != FP32}
            if not others:  # it is the rest that is too noisy
                break
            worst = max(others, key=lambda name: self.probed.noise_of(name, plan.layers[name], plan.rest))
            reverted.append(worst)
            plan = plan.reverted(worst)
            self.tell(f"over the budget on held-out inputs: {worst} is given back to FP32")
        return uniform_plan(FP32, FP32, self.probed), tuple(reverted)

    def _anything_fits(self, contest: Contest) -> bool:
        """Whether anything but FP32 keeps the budget: a scheme that was measured, or a single layer at a precision."""
        if any(own.within and not own.plan.is_fp32 for own in contest.entered):
            return True
        wish = self.shop.wish
        if wish.min_sqnr_db is None:
            return False
        allowed = self.probed.signal / 10 ** ((wish.min_sqnr_db + PREDICTION_MARGIN_DB) / 10)
        return any(noise <= allowed for (_, own), noise in self.probed.noise.items() if own != FP32)

    def _recipe(self, chosen: Measured) -> Recipe:
        return Recipe(
            self.shop.model.name,
            chosen.plan.rest,
            chosen.plan.layers,
            chosen_for=self.shop.wish,
            predicted=chosen.predicted,
            measured=chosen.figures,
            environment=self.shop.device.environment,
        )
