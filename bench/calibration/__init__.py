"""Evidence for the gate: simulated suites and replays of recorded processes. ``python -m bench.calibration``."""
