"""The page ``report.html``: one file that needs no network, and that runs nothing but its own script."""
