"""What is kept on the disk: results, samples and baselines; written whole, read with a check of their schema."""
