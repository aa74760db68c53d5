"""Checkpoints as each trainer names them, made of Hugging Face tensors and saved by torch's own distributed checkpoint.

The formulas follow what the trainers' conversions do, one tensor at a time, and were written apart from vlconv's
tables: nothing here uses vlconv.

    sizes             the few numbers of a config.json that the formulas need
    decoder, vision   what several trainers share: Megatron's language decoder, its vision blocks
    mbridge …         one trainer each
    saving            stacked layers, wrappers, padding, and the files
    places            the folders and side files of each trainer
"""
