"""Commands that combine several packages.

A command lives in the package whose work it does; one that needs several packages and belongs to none lives here.
Each is a module with `main`, listed in `facedancer.cli.VERBS`.
"""
