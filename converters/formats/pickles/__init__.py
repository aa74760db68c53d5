"""Pickles: those of strangers, read without running anything; those of checkpoints, written without torch."""
