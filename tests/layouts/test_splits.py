"""How tensors are cut among ranks: what the rules by name take for granted. The cuts themselves are held against
megatron-core in tests/formats/legacy.
"""

from __future__ import annotations

from vlconv.converters.models import MODELS


def test_no_model_has_deepstack_mergers_and_gated_vision_blocks() -> None:
    """MindSpeed-MM keeps the mergers inside the blocks; there `.layers.` and `.linear_fc1.` alone would not tell them
    apart.
    """
    assert not [kind for kind, model in MODELS.items() if model.traits.deepstack and model.traits.gated_vision_mlp]
