"""Frozen values, and how they read as JSON. Needs no torch."""
