"""Everything that needs Lightning or serves a training: modules, objectives, regimes, callbacks, checkpoints, runs."""
