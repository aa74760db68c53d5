"""Pickles of strangers, read without running anything."""
