"""How a converted model is run: which executions there are, what each prepares, and the schemes they make."""
