"""Opening a side: recognised, given a config that agrees, checked, described."""
