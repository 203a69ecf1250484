"""The verdict on a model, from its answers alone: knows models/view.py's methods and arrays, no flag and no loop of training.

judge.py is the classifier that says which factors a clip shows.
"""
