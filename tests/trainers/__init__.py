"""Checkpoints as each trainer names them, made of Hugging Face tensors and saved by torch's own distributed checkpoint.

The formulas follow what the trainers' conversions do, one tensor at a time, and were written apart from vlconv's
tables: nothing here uses vlconv.

    sizes             the few numbers of a config.json that the formulas need
    decoder           what several trainers share: Megatron's language decoder
    attention,
    delta_net         the two kinds of layers in it
    vision            Megatron's vision blocks
    mcore_towers,
    hf_towers,
    text_only,
    mindspeed         one trainer each, by the vision tower that it has
    saving            stacked layers, wrappers, padding, and the files
    ranks             the same as legacy rank files
    statements        what lies beside the weights
    places            the folders and side files of each trainer
    hub               the Hub's names and shapes of the models without deepstack and windows
"""
