"""Who learns from it: algorithms, the trainer, evaluation, runs and the command line."""
