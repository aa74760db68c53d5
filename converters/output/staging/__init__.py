"""Where an output is written before it takes its place, and what a killed run has left there."""
