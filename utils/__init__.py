"""Tools that know nothing of video models: flags, settings, files, checkpoints, steps."""
