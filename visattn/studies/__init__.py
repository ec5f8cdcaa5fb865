"""What is found out about attention beyond the scores of a run: a study a module or package, which names its script."""
