"""Experiments as YAML; shipped with the package, so that `configs/...` works outside a clone."""
