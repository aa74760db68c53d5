"""Two sides held against each other: element by element, and where something is computed by its rule."""
