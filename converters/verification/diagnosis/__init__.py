"""What went wrong where two models differ: known faults that fit exactly, else how the difference looks."""
