"""The verdict on a trained model, which is asked through models/view.py only."""
