"""The models that can be measured: bundled configs and weights, those users add, and what a model answers."""
