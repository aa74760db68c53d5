"""repair: a permutation that is recognised exactly, undone in what another tool wrote."""
