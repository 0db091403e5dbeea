"""Which pair to deploy: what holds the limits, what stands out among it, and what it costs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_vq.errors import ResultsError
from pytest_vq.report.candidates import Candidate, by_model, candidates_of, served_rows
from pytest_vq.report.constraints import Answer, Check, check, worst_answer
from pytest_vq.report.decision_tree import Objective, Path, descend, questions_of
from pytest_vq.report.deployment_cost import DeploymentCost, Prices, cost_of
from pytest_vq.report.limits import Constraint, Quantity
from pytest_vq.report.pareto import Axes, Standing, axes_of, place
from pytest_vq.report.scenarios import Scenario
from pytest_vq.report.tiers import Pick, Tiers, fastest, smallest, tiers_of
from pytest_vq.report.under_load import ServedAnswer, advice, answer_served
from pytest_vq.store.results import Results
from pytest_vq.store.samples import SamplesLine

_BY_THE_MEDIAN = "the median of every other pair is above it already"


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks for."""

    scenario: Scenario | None = None
    own: tuple[Constraint, ...] = ()  # limits beside the scenario's, or in place of its one on the same quantity
    prices: Prices = field(default_factory=Prices)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Every limit."""
        given = {(limit.quantity, limit.percentile) for limit in self.own}
        preset = self.scenario.constraints if self.scenario else ()
        return (*(limit for limit in preset if (limit.quantity, limit.percentile) not in given), *self.own)

    @property
    def is_under_load(self) -> bool:
        """Whether a limit is asked of rows under load."""
        return any(limit.under_load for limit in self.constraints)

    def under_load(self) -> Request:
        """The same question, the limits on percentiles of whose scenario are asked of rows under load."""
        if self.scenario is None:
            return self
        limits = (
            replace(limit, under_load=True) if limit.quantity is Quantity.PERCENTILE else limit
            for limit in self.scenario.constraints
        )
        return replace(self, scenario=replace(self.scenario, constraints=tuple(limits)))

    @property
    def objective(self) -> Objective:
        """What matters most."""
        return self.scenario.objective if self.scenario else Objective.BALANCE


@dataclass(frozen=True, slots=True)
class Assessment:
    """One pair: its answer to every limit, and where it stands among its model's."""

    candidate: Candidate
    checks: tuple[Check, ...]
    standing: Standing
    axes: Axes

    @property
    def answer(self) -> Answer:
        """Whether it holds them all."""
        return worst_answer(found.answer for found in self.checks)


@dataclass(frozen=True, slots=True)
class NearestMiss:
    """The pair that comes nearest to a limit without holding it for sure; None where none was measured."""

    constraint: Constraint
    held_by: int  # pairs
    name: str | None = None  # of that pair
    check: Check | None = None
    excess: float | None = None  # of the interval's worse end beyond the limit, in the limit's unit
    hint: str = ""  # where no figure was measured: how to, or why none was needed
    is_held_by_all: bool = False


@dataclass(frozen=True, slots=True)
class Foremost:
    """The first of all pairs that hold, whatever their model, by what can be compared between models."""

    by: Objective
    pick: Pick


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer to a request."""

    request: Request
    assessments: tuple[Assessment, ...]
    tiers: tuple[Tiers, ...]  # a model each, of those with a pair that holds
    foremost: Foremost | None
    paths: tuple[Path, ...]
    costs: tuple[DeploymentCost, ...]
    nearest_misses: tuple[NearestMiss, ...]  # where nothing qualifies
    unmeasured: tuple[str, ...]  # what this run could not measure, a sentence each
    served: tuple[ServedAnswer, ...] = ()  # where rows under load answer; those that hold first
    advice: tuple[str, ...] = ()  # what would answer better, where the question is about traffic

    @property
    def qualified(self) -> tuple[str, ...]:
        """The pairs that hold every limit; one that was only put under load among them."""
        pairs = [assessment.candidate.name for assessment in self.assessments if assessment.answer is Answer.YES]
        pairs += [found.pair for found in self.served if found.candidate is None and found.answer is Answer.YES]
        return tuple(dict.fromkeys(pairs))


def recommend(results: Results, samples: Sequence[SamplesLine], request: Request) -> Recommendation:
    """What ``results`` recommend. Raises ResultsError where they hold nothing that the question could be asked of."""
    candidates, traffic = candidates_of(results.rows, samples), served_rows(results.records)
    is_about_traffic = request.scenario is not None and request.scenario.is_served
    request = request.under_load() if is_about_traffic and traffic else request
    served = answer_served(traffic, candidates, request.constraints, request.prices) if request.is_under_load else ()
    _require_evidence(candidates, request, len(traffic))
    groups = by_model(candidates)
    by_throughput = request.objective is Objective.THROUGHPUT
    axes = {model: axes_of(group, by_throughput=by_throughput) for model, group in groups.items()}
    assessments = [a for model, group in groups.items() for a in _assess(group, axes[model], request.constraints)]
    holding = by_model(a.candidate for a in assessments if a.answer is Answer.YES)
    judged = [(a.candidate.name, a.checks) for a in assessments] or [(one.name, one.checks) for one in served]
    told = advice(candidates, results.options, has_served=bool(served)) if is_about_traffic else ()
    questions = questions_of(request.constraints)
    found = Recommendation(
        request,
        tuple(assessments),
        tuple(tiers_of(model, group, axes[model]) for model, group in holding.items()),
        _foremost(holding, request.objective, several=len(groups) > 1),
        tuple(descend(m, group, questions, (request.objective, axes[m])) for m, group in groups.items()),
        tuple(cost_of(candidate, request.prices) for candidate in candidates) if request.prices.asks else (),
        (),
        _unmeasured(results),
        served,
        tuple(told),
    )
    if found.qualified:
        return found
    return replace(found, nearest_misses=tuple(_nearest_miss(i, x, judged) for i, x in enumerate(request.constraints)))


def _require_evidence(candidates: Sequence[Candidate], request: Request, served: int) -> None:
    if not candidates and request.is_under_load:
        return
    if not candidates and served:
        raise ResultsError(
            f"only pairs under load were measured in these results ({served}): --scenario cloud asks them; for "
            "anything else measure the pairs by themselves too"
        )
    if not candidates:
        raise ResultsError("no pair was measured in these results: nothing to recommend from")
    wanted = any(limit.quantity is Quantity.TOP1 for limit in request.constraints)
    if wanted and all(candidate.record.fidelity.accuracy is None for candidate in candidates):
        raise ResultsError(
            "--min-top1 needs accuracy on labelled images, and no pair of these results has any: register the model "
            "with labelled=..., measure vit-digits, or bound its fidelity by --min-sqnr-db instead"
        )


def _assess(group: Sequence[Candidate], axes: Axes, constraints: Sequence[Constraint]) -> list[Assessment]:
    return [
        Assessment(standing.candidate, tuple(check(limit, standing.candidate) for limit in constraints), standing, axes)
        for standing in place(group, axes)
    ]


def _foremost(holding: Mapping[str, Sequence[Candidate]], objective: Objective, *, several: bool) -> Foremost | None:
    """By what matters most; a balance is a model's own, so that of several the latency is told."""
    if objective is Objective.BALANCE:
        if not several:
            return None
        objective = Objective.LATENCY
    everything = [candidate for group in holding.values() for candidate in group]
    by_memory = objective is Objective.MEMORY
    axes = Axes(by_throughput=objective is Objective.THROUGHPUT)
    pick = smallest(everything) if by_memory else fastest(everything, axes)
    return None if pick is None else Foremost(objective, pick)


def _nearest_miss(index: int, limit: Constraint, judged: Sequence[tuple[str, Sequence[Check]]]) -> NearestMiss:
    """Of what was ``judged``, by name."""
    checks = [(name, found[index]) for name, found in judged]
    held_by = sum(found.answer is Answer.YES for _, found in checks)
    if held_by == len(checks):
        return NearestMiss(limit, held_by, is_held_by_all=True)
    known = [
        (_excess(found), name, found)
        for name, found in checks
        if found.answer is not Answer.YES and found.value is not None
    ]
    if not known:
        hints = [found.hint for _, found in checks if found.answer is Answer.NOT_MEASURED]
        return NearestMiss(limit, held_by, hint=hints[0] if hints else _BY_THE_MEDIAN)
    excess, name, found = min(known, key=lambda entry: entry[:2])
    return NearestMiss(limit, held_by, name, found, excess)


def _excess(found: Check) -> float:
    """How far the worse end of what is known lies beyond the limit; 0 where only its interval is missing."""
    limit = found.constraint
    worse = found.high if limit.is_upper else found.low
    end = found.value if worse is None else worse
    if end is None:
        raise ValueError("only a figure that was measured can miss a limit")
    return max(end - limit.limit if limit.is_upper else limit.limit - end, 0.0)


def _unmeasured(results: Results) -> tuple[str, ...]:
    failed = [f"failed: {f.id}: {f.error}: {f.message}" for f in results.failures]
    if not results.complete:
        failed.append("this run was interrupted: the pairs after that are missing; measure again for all of them")
    return tuple(failed)
