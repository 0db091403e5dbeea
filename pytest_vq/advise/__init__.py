"""Advice by measuring: which precision each layer should have, and a verified quantized model or FP32. Needs torch."""
