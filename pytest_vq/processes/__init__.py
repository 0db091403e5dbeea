"""Pytest in processes of its own: its command line, and what a run leaves."""
