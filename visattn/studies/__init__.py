"""Studies of attention beyond the scores of a run. Each module or package names its command."""
