"""What is found out of trained models, beyond the scores of a run. A file a study; a script of its name is the door."""
