"""Studies of attention beyond the scores of a run; each module or package names its command."""
