"""Measuring one pair: clock, sampler, memory, fidelity and the evidence kept beside them. Needs torch."""
