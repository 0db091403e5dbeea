"""Serving: what a scheme does under load, and how it is let in without harm. Guard and faults need torch."""
