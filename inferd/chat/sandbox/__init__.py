"""Jinja environment in which the work and the memory of a rendering are bounded."""
