"""What differs between a CPU and an accelerator: clock, memory, telemetry, lock, fingerprint. Needs torch."""
