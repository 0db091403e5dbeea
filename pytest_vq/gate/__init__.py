"""The decision on a pair: fresh processes against a baseline, or two sides against each other. Pure."""
