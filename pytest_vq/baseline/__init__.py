"""What figures are compared with: the stored baselines, the statistics of processes, and the decision."""
