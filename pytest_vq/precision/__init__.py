"""From an FP32 model to a precision: which there are, how each is made, and whether it is what its name says."""
