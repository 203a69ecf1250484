"""Tools that know nothing of video models: configuration, steps, schedules, checkpoints, pictures."""
