"""Studies: the functions behind the commands, called with Python objects."""
