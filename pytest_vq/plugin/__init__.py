"""pytest's side: hooks, fixtures and the run's state. Empty, because every pytest run of an environment loads it."""
