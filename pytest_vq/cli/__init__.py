"""The console script ``pytest-vq``: a module a command. Imports no torch itself."""
