"""Studies: what each command does, as functions of Python objects."""
