"""The catalog: which models can be measured, and how users add their own. Importing it loads no torch."""

from __future__ import annotations

from pytest_vq.catalog.registry import STUDY, get, isolated, models, register_model, select

__all__ = ["STUDY", "get", "isolated", "models", "register_model", "select"]
