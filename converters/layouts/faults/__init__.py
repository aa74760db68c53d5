"""Known ways in which tools write good numbers in wrong places, as equal boxes beside the layouts."""
