"""FP8 numbers and their scales, read and made: arithmetic, as steps of their own."""
