"""The verdict on a trained model: judges, measures and the protocols that combine them.

A model is asked through models/view.py only; no module here knows a model's flags or how it trains.
"""
