"""The files of an output, written, copied and read back."""
