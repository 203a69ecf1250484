"""Grids, GIFs, plots and the report of a run. Knows models/view.py and arrays, no model by name."""
