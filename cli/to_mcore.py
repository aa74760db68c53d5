"""vlconv hf2mcore and mcore2mcore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlconv import arguments as a
from vlconv.run import run

# vlconv.converters is imported inside the command: `vlconv --help` must not wait for numpy.

HF2MCORE = """[bold]Examples[/bold]

[dim]# what Megatron-LM's --load takes, at any parallel sizes[/dim]

vlconv hf2mcore Qwen3-VL-8B-Instruct checkpoints

[dim]# rank files of the legacy format, for TP 4 x PP 2, the vocabulary padded as Megatron-LM pads it[/dim]

vlconv hf2mcore Qwen3-VL-8B-Instruct checkpoints --format torch --tp 4 --pp 2 --make-vocab-size-divisible-by 128
"""

MCORE2MCORE = """[bold]Examples[/bold]

[dim]# legacy rank files to what loads at any parallel sizes[/dim]

vlconv mcore2mcore checkpoints/iter_0001000 resharded

[dim]# for another topology[/dim]

vlconv mcore2mcore checkpoints resharded --format torch --tp 8 --pp 4

[dim]# in another trainer's names[/dim]

vlconv mcore2mcore checkpoints relaid --layout pai
"""

Format = Annotated[
    Literal["torch_dist", "torch"],
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="As Megatron's --ckpt-format: torch_dist, or torch, the legacy rank files.",
        rich_help_panel=a.OUTPUT,
    ),
]
PerLayer = Annotated[
    bool,
    typer.Option(
        "--per-layer",
        metavar="",
        help="torch_dist with one key per layer, for models whose layers are not alike.",
        rich_help_panel=a.OUTPUT,
    ),
]
WriteLayout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="The trainer's naming to write. Left out: the source's, or the usual one of the model.",
        rich_help_panel=a.OUTPUT,
    ),
]
WriteIteration = Annotated[
    int | None,
    typer.Option(
        "--iteration",
        parser=a.parse_positive,
        metavar="N",
        help="Write iter_N instead of release, which trainers read as converted weights.",
        rich_help_panel=a.OUTPUT,
    ),
]


TOPOLOGY = "The topology of --format torch"


def _size(names: list[str], what: str) -> Any:
    return typer.Option(*names, parser=a.parse_positive, metavar="N", help=what, rich_help_panel=TOPOLOGY)


Tp = Annotated[int, _size(["--tp", "--tensor-model-parallel-size"], "Tensor parallel size.")]
Pp = Annotated[int, _size(["--pp", "--pipeline-model-parallel-size"], "Pipeline parallel size.")]
Vpp = Annotated[int, _size(["--vpp", "--virtual-pipeline-model-parallel-size"], "Model chunks per pipeline stage.")]
Ep = Annotated[int, _size(["--ep", "--expert-model-parallel-size"], "Expert parallel size.")]
Etp = Annotated[
    int | None,
    _size(["--etp", "--expert-tensor-parallel-size"], "Expert tensor parallel size: 1, or that of --tp (the default)."),
]
First = Annotated[
    int | None, _size(["--decoder-first-pipeline-num-layers"], "Layers of the first stage, where it has fewer or more.")
]
Last = Annotated[
    int | None, _size(["--decoder-last-pipeline-num-layers"], "Layers of the last stage, where it has fewer or more.")
]


def hf2mcore(
    source: Annotated[Path, typer.Argument(metavar="HF", help="Hugging Face directory: config.json and safetensors.")],
    target: Annotated[
        Path, typer.Argument(metavar="MCORE", help="Directory to write. It appears when it is complete.")
    ],
    experts_form: a.ExpertsForm = None,
    file_format: Format = "torch_dist",
    per_layer: PerLayer = False,
    layout: WriteLayout = None,
    make_vocab_size_divisible_by: a.WriteDivisor = None,
    dtype: a.Dtype = None,
    iteration: WriteIteration = None,
    overwrite: a.Overwrite = False,
    tp: Tp = "1",  # type: ignore[assignment]  # typer parses the default, too
    pp: Pp = "1",  # type: ignore[assignment]
    vpp: Vpp = "1",  # type: ignore[assignment]
    ep: Ep = "1",  # type: ignore[assignment]
    etp: Etp = None,
    first: First = None,
    last: Last = None,
    strict: a.Strict = False,
    dry_run: a.DryRun = False,
    threads: a.Threads = None,
    as_json: a.Json = False,
    quiet: a.Quiet = False,
    debug: a.Debug = False,
) -> None:
    """Convert a Hugging Face directory to a Megatron checkpoint.

    torch_dist, the default, loads at any parallel sizes. config.json and the tokenizer files go along, so that the way
    back needs no --reference.
    """
    from vlconv import converters

    options = converters.Hf2McoreOptions(
        experts_form=experts_form,
        format=file_format,
        per_layer=per_layer,
        layout=layout,
        make_vocab_size_divisible_by=make_vocab_size_divisible_by,
        dtype=dtype,
        iteration=iteration,
        overwrite=overwrite,
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        virtual_pipeline_model_parallel_size=vpp,
        expert_model_parallel_size=ep,
        expert_tensor_parallel_size=etp,
        decoder_first_pipeline_num_layers=first,
        decoder_last_pipeline_num_layers=last,
        strict=strict,
        dry_run=dry_run,
        threads=threads,
    )
    code = run(
        "hf2mcore",
        lambda see: converters.hf2mcore(source, target, options, see),
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        debug=debug,
    )
    raise typer.Exit(code)


def mcore2mcore(
    source: Annotated[
        Path, typer.Argument(metavar="FROM", help="Megatron checkpoint of any format, or the directory above it.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TO", help="Directory to write. It appears when it is complete.")],
    reference: a.Reference = None,
    revision: a.Revision = None,
    from_iteration: Annotated[
        int | None,
        typer.Option(
            parser=a.parse_number,
            metavar="N",
            help="Which iteration to read where the directory holds several.",
            rich_help_panel=a.MODEL,
        ),
    ] = None,
    from_layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The source's naming. Left out: recognised, and said.", rich_help_panel=a.MODEL
        ),
    ] = None,
    file_format: Format = "torch_dist",
    per_layer: PerLayer = False,
    layout: WriteLayout = None,
    make_vocab_size_divisible_by: a.WriteDivisor = None,
    dtype: a.Dtype = None,
    iteration: WriteIteration = None,
    overwrite: a.Overwrite = False,
    tp: Tp = "1",  # type: ignore[assignment]
    pp: Pp = "1",  # type: ignore[assignment]
    vpp: Vpp = "1",  # type: ignore[assignment]
    ep: Ep = "1",  # type: ignore[assignment]
    etp: Etp = None,
    first: First = None,
    last: Last = None,
    trust_reference: a.TrustReference = False,
    strict: a.Strict = False,
    dry_run: a.DryRun = False,
    threads: a.Threads = None,
    as_json: a.Json = False,
    quiet: a.Quiet = False,
    debug: a.Debug = False,
) -> None:
    """Write a Megatron checkpoint's weights in another format, topology or layout.

    Weights only: optimizer, scheduler and random states stay behind. Nothing passes through a Hugging Face directory on
    disk.
    """
    from vlconv import converters

    options = converters.Mcore2McoreOptions(
        reference=reference,
        revision=revision,
        from_iteration=from_iteration,
        from_layout=from_layout,
        trust_reference=trust_reference,
        format=file_format,
        per_layer=per_layer,
        layout=layout,
        make_vocab_size_divisible_by=make_vocab_size_divisible_by,
        dtype=dtype,
        iteration=iteration,
        overwrite=overwrite,
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        virtual_pipeline_model_parallel_size=vpp,
        expert_model_parallel_size=ep,
        expert_tensor_parallel_size=etp,
        decoder_first_pipeline_num_layers=first,
        decoder_last_pipeline_num_layers=last,
        strict=strict,
        dry_run=dry_run,
        threads=threads,
    )
    code = run(
        "mcore2mcore",
        lambda see: converters.mcore2mcore(source, target, options, see),
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        debug=debug,
    )
    raise typer.Exit(code)
