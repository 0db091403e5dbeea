"""What each layer costs and adds in noise at each precision, measured inside the whole model.

Noise is measured a layer at a time and adds up in power; time a layer *shape* at a time, paired against FP32, and adds
up too. Both within limits that the finished model is checked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_vq.advise.workshop import MIX, Workshop
from pytest_vq.errors import OutputError, PrecisionError, first_line
from pytest_vq.precision.converted import short_name
from pytest_vq.precision.layers import eligible_layers
from pytest_vq.precision.precisions import find_precision
from pytest_vq.precision.recipe_precision import layer_precision
from pytest_vq.schema.spec import EAGER, FP32, Mix
from pytest_vq.wording import count

Tell = Callable[[str], None]
Shape = tuple[int, int]  # in and out features


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model costs of one quantity: a base for each type of the rest, and more or less for each layer."""

    base: Mapping[str, float]  # rest -> with every layer in its type
    of_layer: Mapping[tuple[str, Shape, str], float]  # rest, shape, precision -> what a layer of it adds to that


@dataclass(slots=True)
class Probed:
    """What was measured of a model's layers."""

    shapes: Mapping[str, Shape]  # of each layer by its dotted name
    precisions: tuple[str, ...]  # to choose from, beside FP32
    signal: float  # power of FP32's answer
    noise: dict[tuple[str, str], float] = field(default_factory=dict)  # layer, precision -> power that it adds
    rest_noise: dict[str, float] = field(default_factory=dict)  # rest -> power with every layer in FP32
    refused: dict[str, list[str]] = field(default_factory=dict)  # precision -> why layers cannot have it

    def options(self, layer: str, rest: str) -> list[str]:
        """The precisions that ``layer`` may have beside ``rest``: FP32, those to choose from, and the rest's."""
        return [p for p in dict.fromkeys((FP32, *self.precisions, rest)) if (layer, p) in self.noise]

    def noise_of(self, layer: str, precision: str, rest: str) -> float:
        """The power that ``layer`` adds at ``precision`` beside ``rest``.

        Alone it was measured beside FP32. A quantized layer multiplies in the rest's type, and adds that rounding too.
        """
        own = self.noise[layer, precision]
        is_rounded = rest != FP32 and find_precision(precision).layer is not None
        return own + self.noise[layer, rest] if is_rounded else own


def probe_noise(shop: Workshop, precisions: Sequence[str], tell: Tell) -> Probed:
    """The noise of every layer at each of ``precisions``, alone in an FP32 model, and of each type of the rest.

    What cannot be had is not there, and why is kept.
    """
    layers = eligible_layers(shop.reference.source, shop.model.heads)
    shapes = {name: (layer.in_features, layer.out_features) for name, layer in layers.items()}
    found = Probed(shapes, tuple(precisions), shop.probed.signal)
    fp32, rests = find_precision(FP32), _rests(shop, precisions)
    found.noise.update({(name, FP32): 0.0 for name in layers})
    every = [name for name in dict.fromkeys([*precisions, *rests]) if name != FP32]
    for number, name in enumerate(layers, start=1):
        for precision in every:
            noise = _noise(shop, Mix({name: layer_precision(precision)}, fp32), found.refused.setdefault(precision, []))
            if noise is not None:
                found.noise[name, precision] = noise
        tell(f"noise of layer {number} of {len(layers)}, {name}")
    found.rest_noise[FP32] = 0.0
    for rest in rests:
        reasons = found.refused.setdefault(rest, [])
        if rest == FP32 or reasons:  # a rest whose type some layer cannot have suits no model of it
            continue
        noise = _noise(shop, Mix(dict.fromkeys(layers, fp32), find_precision(rest)), reasons)
        if noise is not None:
            found.rest_noise[rest] = noise
    return found


def _noise(shop: Workshop, mix: Mix, refused: list[str]) -> float | None:
    try:
        with shop.placed(mix) as workload:
            return shop.answered(workload, shop.probed).noise
    except (PrecisionError, OutputError) as error:
        refused.append(first_line(error).removeprefix(f"{MIX}: "))
        return None


def _rests(shop: Workshop, precisions: Sequence[str]) -> tuple[str, ...]:
    """The types that the rest may have: FP32, those to choose from, and what quantizing ones have on this device."""
    names = [short_name(shop.device.rest_for(find_precision(name))) for name in precisions]
    return tuple(dict.fromkeys([FP32, *names]))


def probe_sizes(shop: Workshop, probed: Probed) -> Costs:
    """Bytes that the model is stored in. They depend on a layer's shape alone, so one of each shape is converted."""

    def measure(mix: Mix) -> _Cost:
        return _Cost(shop.size_bytes(mix))

    return _probe(probed, measure, lambda layers: layers[:1])


def probe_times(shop: Workshop, probed: Probed, tell: Tell) -> Costs:
    """Time in units of FP32's, each in turns with it.

    All layers of a shape are changed together: of one alone a clock's noise would leave nothing to see. A saving that
    cannot be told from none counts as a loss, or the search would pick out the luckiest of many figures.
    """

    def measure(mix: Mix) -> _Cost:
        if mix.rest.name == FP32 and not mix.layers and shop.wish.execution == EAGER:
            return _Cost(1.0)
        with shop.placed(mix, shop.wish.execution) as workload:
            speedup = shop.time_beside_fp32(workload).speedup
        ratio = 1 / speedup.value
        at = ", ".join(sorted({spec.name for spec in mix.layers.values()})) or mix.rest.name
        many = count(len(mix.layers or probed.shapes), "layer")
        tell(f"time with {many} at {at}, {mix.rest.name} rest: {ratio:.3f} of FP32's")
        if speedup.low is None or speedup.high is None:
            return _Cost(ratio)
        return _Cost(ratio, (1 / speedup.low - 1 / speedup.high) / 2)

    return _probe(probed, measure, lambda layers: layers)


@dataclass(frozen=True, slots=True)
class _Cost:
    """A model's cost as it was measured, and the half-width of its 95 % interval."""

    value: float
    half_width: float = 0.0

    def more_than(self, other: _Cost) -> float:
        """What it costs more, or less; a saving that may be none is taken for the loss that it may be instead."""
        more, doubt = self.value - other.value, self.half_width + other.half_width
        return more + doubt if -doubt < more < 0 else more


def _probe(probed: Probed, measure: Callable[[Mix], _Cost], changed: Callable[[list[str]], list[str]]) -> Costs:
    base: dict[str, _Cost] = {}
    of_layer: dict[tuple[str, Shape, str], float] = {}
    for rest in probed.rest_noise:
        spec = find_precision(rest)
        base[rest] = measure(Mix({}, spec))
        for shape in dict.fromkeys(probed.shapes.values()):
            of_layer[rest, shape, rest] = 0.0
            alike = [name for name, own in probed.shapes.items() if own == shape]
            for precision in dict.fromkeys(p for name in alike for p in probed.options(name, rest) if p != rest):
                layers = changed([name for name in alike if (name, precision) in probed.noise])
                cost = measure(Mix(dict.fromkeys(layers, layer_precision(precision)), spec))
                of_layer[rest, shape, precision] = cost.more_than(base[rest]) / len(layers)
    return Costs({rest: cost.value for rest, cost in base.items()}, of_layer)
