from __future__ import annotations

import csv
from pathlib import Path

import pytest

import pytest_vq
from pytest_vq.catalog.models import select_models
from pytest_vq.schema.side import SideKind
from pytest_vq.schema.spec import CaseId
from pytest_vq.store.published import SCHEMES, published_study, read_published_table

MIB = 2**20


def figures(model: str, scheme: str) -> dict[str, tuple[float, ...]]:
    (pair,) = [pair for pair in published_study().pairs if pair.case_id == CaseId(model, scheme, 1)]
    return dict(pair.figures)


def test_its_table_is_in_the_package() -> None:
    file = Path(pytest_vq.__file__).parent / "store" / "data" / "published_study.csv"
    with file.open(encoding="utf-8", newline="") as opened:
        assert list(csv.DictReader(opened)) == read_published_table()


def test_it_has_the_catalogs_sixteen_models_at_four_schemes() -> None:
    study = published_study("B")
    assert (study.label, study.name, study.kind) == ("B", "study", SideKind.STUDY)
    models = [spec.name for spec in select_models("study", accelerator=True)]
    assert [pair.case_id for pair in study.pairs] == [CaseId(m, s, 1) for m in models for s in SCHEMES]
    assert len(study.pairs) == 64
    assert len({pair.category for pair in study.pairs}) == 6
    assert None not in {pair.category for pair in study.pairs}


def test_figures_have_our_units() -> None:
    found = figures("vit-huge-patch14-224-in21k", "fp16")
    assert found["latency_ms"] == (10.24,)
    assert found["speedup"] == pytest.approx((2.499,), abs=1e-3)
    assert found["resting_memory_bytes"] == pytest.approx((1214.34 * MIB,))


def test_fp32_has_no_speedup_over_itself() -> None:
    assert set(figures("dino-vits16", "fp32")) == {"latency_ms", "resting_memory_bytes"}


def test_what_it_did_not_measure_has_no_figure() -> None:
    for pair in published_study().pairs:
        assert not {"peak_memory_bytes", "model_size_bytes", "sqnr_db", "accuracy"} & set(pair.figures)
        assert bool(pair.figures) == (pair.case_id.scheme != "int4")
        assert (pair.entry, pair.processes, pair.setup) == (None, (), None)


def test_it_says_where_it_comes_from_and_what_is_wrong_with_it() -> None:
    study = published_study()
    assert study.facts["device"] == "RTX 4070 Ti SUPER, 16 GB"
    assert [study.facts[name] for name in ("torch", "cuda", "bitsandbytes", "batch")] == ["2.1", "12.1", "0.42", "1"]
    assert "100 warm-up + 1,000 timed" in study.facts["protocol"]
    faults = " ".join(study.faults)
    for words in (
        "INT4 was not measured",
        "accuracy was not measured",
        "memory at rest",
        "8 MiB",
        "MiB",
        "no interval",
    ):
        assert words in faults
