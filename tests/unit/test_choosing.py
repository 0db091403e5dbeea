"""A precision for each layer, by measuring: on a machine where time is what it is said to be, and on vit-digits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_clock import FakeClock
from own_bench import own_place
from torch import Tensor, nn

from pytest_vq import register_model
from pytest_vq.advise import choosing
from pytest_vq.advise.choosing import check_wish, choose
from pytest_vq.advise.workshop import opened
from pytest_vq.catalog.models import find_model
from pytest_vq.device.clock import HostClock
from pytest_vq.errors import SelectionError
from pytest_vq.execution.schemes import find_scheme
from pytest_vq.measure.bench import Bench
from pytest_vq.options import Options
from pytest_vq.precision.recipe_precision import precision_of
from pytest_vq.report.choice_text import choice_text
from pytest_vq.schema.choice import Choice, ChoiceRequest, Contender
from pytest_vq.schema.recipe import Recipe, Wish
from pytest_vq.schema.spec import Case, Target
from pytest_vq.store.recipes import write_recipe

CPU = Target(is_accelerator=False)
QUIET: list[str] = []


def figures_of(choice: Choice) -> dict[str, Contender]:
    return {own.name: own for own in choice.contenders}


class TestOnASteadyMachine:
    """FP32 takes 40 ms; what layers take when they are quantized, a test says."""

    saved_ms: Callable[[frozenset[str]], float]  # names of quantized layers -> milliseconds below FP32's

    @pytest.fixture(autouse=True)
    def machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        machine, clock = type(self), FakeClock()

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.a, self.b, self.c = nn.Linear(192, 64), nn.Linear(64, 96), nn.Linear(96, 128)
                self.head = nn.Linear(128, 10)

            def forward(self, x: Tensor) -> Tensor:
                x = self.c(self.b(self.a(x.flatten(1))).relu()).relu()
                clock.now_ms += 40.0 - machine.saved_ms(quantized_in(self)) + 8.0 * (x.dtype is torch.bfloat16)
                return self.head(x)  # type: ignore[no-any-return]

        monkeypatch.setattr(HostClock, "time_ms", lambda _, *work: clock.time_ms(*work))
        monkeypatch.setattr(HostClock, "now_s", lambda _: clock.now_s())
        with own_place(tmp_path):
            register_model("net", input_shape=(3, 8, 8), head="head")(Net)
            yield

    def choice(self, saved_ms: Callable[[frozenset[str]], float], **wish: object) -> Choice:
        type(self).saved_ms = staticmethod(saved_ms)
        asked = Wish(**({"schemes": ("int8",), "min_sqnr_db": 20.0} | wish))  # type: ignore[arg-type]
        check_wish(asked, CPU)
        return choose(find_model("net"), asked, Options(budget=20.0), QUIET.append)

    def test_each_layer_gets_what_is_fastest_for_it(self) -> None:
        choice = self.choice(lambda quantized: 6.0 * ("a" in quantized) - 5.0 * ("b" in quantized))
        assert choice.recipe is not None
        assert (choice.chosen, choice.recipe.rest) == ("mixed", "fp32")
        assert dict(choice.recipe.layers)["a"] == "int8"
        assert dict(choice.recipe.layers)["b"] == "fp32"
        predicted, measured = choice.recipe.predicted, choice.recipe.measured
        assert predicted is not None
        assert measured is not None
        assert predicted.speedup == pytest.approx(40 / 34)
        assert measured.speedup == pytest.approx(40 / 34)
        turns = "timed in turns with fp32 for every layer"
        assert choice.why == f"{turns}, the mixed choice is 1.18x as fast (95 % interval 1.18x … 1.18x)"

    def test_where_every_layer_is_faster_quantized_the_uniform_scheme_is_the_choice(self) -> None:
        choice = self.choice(lambda quantized: 10.0 * len(quantized))
        assert choice.recipe is not None
        assert set(choice.recipe.layers.values()) == {"int8"}

    def test_time_that_does_not_add_up_is_found_out(self) -> None:
        choice = self.choice(lambda quantized: 4.0 if len(quantized) == 1 else -9.0 * len(quantized))
        mixed = figures_of(choice)["mixed"]
        assert mixed.predicted.speedup == pytest.approx(40 / 28)
        assert mixed.figures.speedup == pytest.approx(40 / 67)
        assert choice.chosen == "fp32"
        assert choice.recipe is not None
        assert set(choice.recipe.layers.values()) == {"fp32"}
        assert "the mixed choice is 0.597x as fast" in choice.why
        assert choice.why.endswith("not clearly faster, so the uniform scheme stands")

    def test_a_layer_too_many_is_given_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        every = self.choice(lambda quantized: 10.0 * len(quantized), min_sqnr_db=5.0)
        least_db = figures_of(every)["int8"].figures.sqnr_db
        assert least_db is not None
        monkeypatch.setattr(choosing, "PREDICTION_MARGIN_DB", -20.0)  # it chooses far beyond the budget
        choice = self.choice(lambda quantized: 10.0 * len(quantized), min_sqnr_db=least_db + 1)
        assert choice.chosen == "mixed"
        assert choice.reverted
        assert choice.recipe is not None
        assert all(choice.recipe.layers[name] == "fp32" for name in choice.reverted)
        measured = choice.recipe.measured
        assert measured is not None
        assert measured.sqnr_db is not None
        assert measured.sqnr_db >= least_db + 1

    def test_a_budget_that_only_fp32_keeps_gives_no_recipe(self) -> None:
        choice = self.choice(lambda quantized: 10.0 * len(quantized), min_sqnr_db=120.0)
        assert (choice.recipe, choice.chosen, choice.why) == (None, "fp32", "nothing but FP32 is within the budget")

    def test_accuracy_takes_labelled_images(self) -> None:
        with pytest.raises(SelectionError, match="--min-top1: net has no labelled images"):
            self.choice(lambda quantized: 0.0, min_sqnr_db=None, min_top1=0.9)

    def test_what_a_layer_cannot_have_is_told(self) -> None:
        choice = self.choice(lambda quantized: 10.0 * len(quantized), schemes=("int4",), min_sqnr_db=5.0)
        assert figures_of(choice)["int4"].words.startswith("2 int4, 1 ")
        (refused,) = choice.refused
        assert refused.startswith("int4: c cannot be int4 here: in_features 96 is not a multiple of 64")


def quantized_in(model: nn.Module) -> frozenset[str]:
    """Names of the layers that are stored in integers."""
    layers = {name: getattr(layer, "layer", layer) for name, layer in model.named_children()}
    return frozenset(name for name, layer in layers.items() if not layer.weight.is_floating_point())


class TestWishes:
    @pytest.mark.parametrize(
        ("wish", "message"),
        [
            (Wish((), min_sqnr_db=30.0), "names nothing beside fp32"),
            (Wish(("fp32",), min_sqnr_db=30.0), "names nothing beside fp32"),
            (Wish(("int9",), min_sqnr_db=30.0), "no precision 'int9': did you mean int8"),
            (Wish(("int8+compile",), min_sqnr_db=30.0), "give precisions here"),
            (Wish(("tf32",), min_sqnr_db=30.0), "tf32 is switched on for all that runs"),
            (Wish(("fp8",), min_sqnr_db=30.0), "fp8 cannot run here: FP8 needs an NVIDIA GPU"),
            (Wish(("int8",), min_sqnr_db=30.0, execution="compile"), r"int8\+compile cannot run here"),
            (Wish(("int8",), min_sqnr_db=30.0, execution="nope"), "no execution 'nope'"),
            (Wish(("int8",)), "name one budget"),
            (Wish(("int8",), min_sqnr_db=30.0, min_top1=0.9), "name one budget"),
        ],
    )
    def test_a_bad_one_is_refused(self, wish: Wish, message: str) -> None:
        with pytest.raises(SelectionError, match=message):
            check_wish(wish, CPU)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_place(tmp_path_factory.mktemp("locks")):
        yield


@pytest.fixture(scope="module")
def choice(place: None) -> Choice:
    """What is chosen for vit-digits, of the least bytes."""
    return choose(find_model("vit-digits"), TestOnDigits.WISH, Options(budget=0.05), QUIET.append)


@pytest.mark.usefixtures("place")
class TestOnDigits:
    """Real figures of the shipped model on its 1,000 labelled images: half to choose on, half held out."""

    WISH = Wish(("int4", "int8", "bf16"), target="size", min_sqnr_db=30.0)

    @pytest.fixture
    def recipe(self, choice: Choice) -> Recipe:
        assert choice.recipe is not None
        return choice.recipe

    def test_it_keeps_the_budget_on_held_out_images(self, recipe: Recipe) -> None:
        assert recipe.measured is not None
        assert recipe.measured.sqnr_db is not None
        assert recipe.measured.sqnr_db >= 30.0

    def test_noise_is_predicted_within_2_db(self, choice: Choice) -> None:
        both = {own.name: (own.predicted.sqnr_db, own.figures.sqnr_db) for own in choice.contenders}
        assert both.pop("fp32") == (None, None)
        assert set(both) == {"int4", "int8", "bf16", "mixed"}
        off = {name: abs(predicted - measured) for name, (predicted, measured) in both.items()}  # type: ignore[operator]
        assert max(off.values()) < 2.0, off

    def test_it_is_smaller_than_the_best_uniform_scheme(self, choice: Choice) -> None:
        within = [own for own in choice.contenders if own.within and own.name != "mixed"]
        smallest = min(own.figures.model_size_bytes or 0 for own in within)
        mixed = figures_of(choice)["mixed"].figures.model_size_bytes
        assert mixed is not None
        assert (choice.chosen, mixed < smallest) == ("mixed", True)
        assert not figures_of(choice)["int4"].within  # which is smaller still

    def test_bytes_are_predicted_to_a_thousandth(self, choice: Choice) -> None:
        for own in choice.contenders:
            assert own.predicted.model_size_bytes == pytest.approx(own.figures.model_size_bytes, rel=1e-3)

    def test_its_recipe_measures_the_same_again(self, recipe: Recipe, tmp_path: Path) -> None:
        write_recipe(tmp_path / "small.json", recipe)
        scheme = find_scheme(f"recipe:{tmp_path}/small.json")
        bench = Bench(Options(budget=0.05))
        try:
            record = bench.measure(Case(find_model("vit-digits"), scheme)).record
        finally:
            bench.release()
        assert recipe.measured is not None
        assert str(record.id) == "vit-digits-recipe-small"
        assert record.memory.model_size_bytes == recipe.measured.model_size_bytes
        assert record.fidelity.sqnr_db == pytest.approx(recipe.measured.sqnr_db, abs=1.0)  # of all images, not of half
        assert record.coverage.quantized == sum(own in ("int4", "int8") for own in recipe.layers.values())
        assert record.setup.recipe == scheme.precision.mix.sha256  # type: ignore[union-attr]
        assert record.setup.rest == recipe.rest

    def test_the_text_has_predicted_beside_measured(self, choice: Choice) -> None:
        text = choice_text(ChoiceRequest("vit-digits", self.WISH, ""), choice, "small.json")
        assert "vit-digits, eager, batch 1: the least size with at least 30 dB" in text
        assert re.search(r"^int4 .* over$", text, re.MULTILINE)
        assert re.search(r"^mixed .* 3\d\.\d dB +3\d\.\d dB .* kept$", text, re.MULTILINE)
        assert text.endswith("pytest --vq-models vit-digits --vq-precisions recipe:small.json")

    def test_by_accuracy_it_keeps_that_on_held_out_images(self) -> None:
        wish = replace(self.WISH, min_sqnr_db=None, min_top1=0.999)
        choice = choose(find_model("vit-digits"), wish, Options(budget=0.05), QUIET.append)
        assert choice.recipe is not None
        assert choice.recipe.measured is not None
        assert choice.recipe.measured.top1 is not None
        assert choice.recipe.measured.top1 >= 0.999

    def test_by_time_it_is_not_slower_than_the_best_uniform_scheme(self) -> None:
        model = find_model("vit-digits")
        wish = Wish(("int8wo", "bf16"), min_sqnr_db=30.0, batch=8)
        options = Options(budget=0.2)
        choice = choose(model, wish, options, QUIET.append)
        assert choice.recipe is not None
        uniform = [own for own in choice.contenders if own.within and own.name != "mixed"]
        best = max(uniform, key=lambda own: own.figures.speedup or 0)
        rest = best.words.split()[-2]
        other = Recipe(model.name, rest, dict.fromkeys(choice.recipe.layers, best.name))
        with opened(model, wish, replace(options, budget=1.0)) as shop:
            mixes = [precision_of(recipe, "mix").mix for recipe in (other, choice.recipe)]
            assert mixes[0] is not None
            assert mixes[1] is not None
            with shop.placed(mixes[0]) as one, shop.placed(mixes[1]) as chosen:
                speedup = shop.time_beside(one.request, chosen).speedup
        assert speedup.high is not None
        assert speedup.high > 0.95  # below that it would be slower by what a gate fails for
