"""megatron-core writes a torch_dist checkpoint of real size, from a Hugging Face directory that its ranks map.

python -m bench.by_megatron_core HF MCORE SIZES      SIZES as JSON: {"tp": 2, "pp": 2}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import checkout


def main() -> None:
    """Start the ranks; a process of its own, so that they end with it."""
    checkout.put_first()
    from mcore import ranks
    from mcore.topology import Topology

    from vlconv.converters.models import model_for

    hf, mcore, topology = Path(sys.argv[1]), sys.argv[2], Topology(**json.loads(sys.argv[3]))
    document = json.loads((hf / "config.json").read_text())
    config = model_for(document).config(document)
    arguments = ("bench.by_megatron_core:write", mcore, config, str(hf), topology)
    ranks.run(topology.world, *arguments, timeout=3600)


def write(directory: str, config: object, hf: str, topology: object) -> None:
    """On a rank: stacked keys of Transformer Engine modules, without optimizer; mapped is what it needs."""
    from mcore.writing import write as save
    from safetensors.torch import load_file

    tensors = {name: t for file in sorted(Path(hf).glob("*.safetensors")) for name, t in load_file(file).items()}
    save(directory, config, tensors, topology, "stacked", "te", True, False, False, None)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
