"""The options of all commands: what each is called on the command line and what its help says, written here once.

A command gets one option for each field of its options dataclass, with the dataclass's default; the dataclass checks
the values. So a new option is a field there and a row here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlconv.helped import complete_layout
from vlconv.run import run

if TYPE_CHECKING:
    from vlconv.converters import Observer, Report

READ, WRITTEN, TRUST, RUN = "About what is read", "About what is written", "What to believe", "About the run"
TOPOLOGY = "The topology of --format torch"


def _text(help_text: str, panel: str, metavar: str, *names: str) -> Any:
    return Annotated[str | None, typer.Option(*names, metavar=metavar, help=help_text, rich_help_panel=panel)]


def _number(help_text: str, panel: str, *names: str) -> Any:
    return Annotated[int | None, typer.Option(*names, metavar="N", help=help_text, rich_help_panel=panel)]


def _layout(help_text: str, panel: str) -> Any:
    return Annotated[
        str | None,
        typer.Option(metavar="NAME", help=help_text, rich_help_panel=panel, autocompletion=complete_layout),
    ]


def _flag(help_text: str, panel: str, name: str) -> Any:
    return Annotated[bool, typer.Option(name, metavar="", help=help_text, rich_help_panel=panel)]


def _choice(choices: Any, help_text: str, panel: str, metavar: str, *names: str) -> Any:
    return Annotated[choices | None, typer.Option(*names, metavar=metavar, help=help_text, rich_help_panel=panel)]


OPTIONS: dict[str, Any] = {
    # what is read
    "reference": _text(
        "Hugging Face directory, or org/name\\[@revision] on the Hub, with the config.json and tokenizer files of this "
        "model. Weights are "
        "fetched for --carry and --mtp carry alone, and only the files that hold them. Left out: the directory "
        "'huggingface' inside the checkpoint, beside it or one above it; else what the checkpoint itself states and "
        "shows.",
        READ,
        "DIR",
    ),
    "references": Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="DIR",
            help="Hugging Face directory, or org/name\\[@revision] on the Hub, with the config.json of a Megatron "
            "side; give it twice where two Megatron sides need different ones.",
            rich_help_panel=READ,
        ),
    ],
    "revision": _text("Branch, tag or commit of a hub id.", READ, "REV"),
    "iteration": _number("Which iteration to read where the directory holds several.", READ),
    "layout": _layout("The trainer's naming of the Megatron source, listed below. Left out: recognised.", READ),
    "experts_form": _choice(
        Literal["hub", "transformers-5", "per-expert"],
        "How the Hugging Face source lays out its experts: hub, transformers-5 or per-expert. Only asked for where "
        "their shapes are square and cannot tell.",
        READ,
        "FORM",
    ),
    "make_vocab_size_divisible_by": _number(
        "As the trainer has it. Read: explains padding of the vocabulary that multiples of 128 do not explain. "
        "Written: pads the vocabulary to a multiple of N x TP, as Megatron does; left out: not padded.",
        READ,
    ),
    "mtp": _choice(
        Literal["require", "carry", "drop"],
        "The multi-token-prediction head: require it, carry the reference's (byte for byte, untrained), or drop it and "
        "set its count in config.json to 0. Left out: what is there; refused where config.json says otherwise. A "
        "Hugging Face source has nothing to carry it from.",
        READ,
        "WAY",
    ),
    "carry": Annotated[
        list[str] | None,
        typer.Option(
            "--carry",
            metavar="PREFIX",
            help="Take every tensor of the reference's weights whose name begins so, byte for byte: model.visual. for "
            "the vision tower of a model whose language half was trained alone. May be given several times.",
            rich_help_panel=READ,
        ),
    ],
    "no_output_layer": _flag(
        "An embedding model has no output layer, though its config.json says that it is not tied. Seen by itself where "
        "files of Sentence Transformers lie beside config.json.",
        READ,
        "--no-output-layer",
    ),
    "base": _text(
        "The model that an adapter (LoRA) changes, where the source holds the adapter alone: a Hugging Face directory, "
        "org/name\\[@revision] on the Hub, or a Megatron checkpoint. The adapter is merged into its weights; with "
        "--adapter only its config is read. Of a PEFT directory left out: as its adapter_config.json says.",
        READ,
        "MODEL",
    ),
    "lora_alpha": Annotated[
        float | None,
        typer.Option(
            metavar="ALPHA",
            help="Of an adapter (LoRA) in the Megatron source: B x A is scaled by alpha / rank. Left out: as its "
            "run_config.yaml or args.json states.",
            rich_help_panel=READ,
        ),
    ],
    # what is written
    "format": _choice(
        Literal["torch_dist", "torch"],
        "As Megatron's --ckpt-format: torch_dist loads at any topology; torch is the legacy rank files.",
        WRITTEN,
        "FORMAT",
        "--format",
    ),
    "per_layer": _flag(
        "torch_dist with one key per layer, for models whose layers are not alike.", WRITTEN, "--per-layer"
    ),
    "as_layout": _layout(
        "The trainer's naming to write, listed below. Left out: the source's, or the usual one of the model.", WRITTEN
    ),
    "as_iteration": _number(
        "Write iter_N instead of release, which trainers read as converted weights; beside the iterations of a save "
        "directory that has others.",
        WRITTEN,
    ),
    "set_latest": _flag("With --as-iteration: the tracker file names it.", WRITTEN, "--set-latest"),
    "dtype": _text(
        "Cast all weights to bfloat16, float16 or float32 (bf16, fp16, fp32 too). Left out: kept as they are.",
        WRITTEN,
        "DTYPE",
    ),
    "max_shard_size": Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            show_default="5GB",
            help="Largest safetensors file, such as 500MB or 2GiB.",
            rich_help_panel=WRITTEN,
        ),
    ],
    "adapter": _flag(
        "Convert an adapter (LoRA) alone, and no model: mcore2hf writes that of the source as a PEFT directory, "
        "hf2mcore writes that of a PEFT directory under Megatron-Bridge's names.",
        WRITTEN,
        "--adapter",
    ),
    "adapter_experts": _choice(
        Literal["transformers-5", "per-expert"],
        "With --adapter, how adapters of experts are written: transformers-5, as peft has them where a layer's experts "
        "are two parameters, or per-expert, a module each, as vLLM reads them.",
        WRITTEN,
        "FORM",
    ),
    "experts": _choice(
        Literal["hub", "per-expert"],
        "How experts are written: hub, as the official release has them, or per-expert, each by itself. Of "
        "Qwen3-VL-MoE per-expert is read by vLLM and SGLang alone; transformers makes up its experts.",
        WRITTEN,
        "FORM",
    ),
    "hf_names": _choice(
        Literal["old", "new"], "Prefixes of Qwen2.5-VL; everything reads the old ones.", WRITTEN, "old|new"
    ),
    "fp8_like": _text(
        "Write FP8 in the form of this FP8 model, a directory or a hub id: which tensors, their scales' dtype, how "
        "experts are held, quantization_config. Of its weights the headers are read.",
        WRITTEN,
        "DIR",
    ),
    "overwrite": _flag(
        "Replace an earlier output of this kind at the target, in one step, once the new one is complete.",
        WRITTEN,
        "--overwrite",
    ),
    "push": _text(
        "Then upload the output to this repository of the Hub, in one commit, once its files are found to be what "
        "vlconv.json says. It is made, and private, if it is not there.",
        WRITTEN,
        "ORG/NAME",
    ),
    "manifest": _flag(
        "Write vlconv.json, which says what the output is, what it was made of, and the checksums of its files.",
        WRITTEN,
        "--manifest/--no-manifest",
    ),
    "sha256": _flag("In vlconv.json a SHA-256 of each file, too.", WRITTEN, "--sha256"),
    "tensor_model_parallel_size": _number("Tensor parallel size.", TOPOLOGY, "--tp", "--tensor-model-parallel-size"),
    "pipeline_model_parallel_size": _number(
        "Pipeline parallel size.", TOPOLOGY, "--pp", "--pipeline-model-parallel-size"
    ),
    "virtual_pipeline_model_parallel_size": _number(
        "Model chunks per pipeline stage.", TOPOLOGY, "--vpp", "--virtual-pipeline-model-parallel-size"
    ),
    "expert_model_parallel_size": _number("Expert parallel size.", TOPOLOGY, "--ep", "--expert-model-parallel-size"),
    "expert_tensor_parallel_size": _number(
        "Expert tensor parallel size: 1, or that of --tp (the default).",
        TOPOLOGY,
        "--etp",
        "--expert-tensor-parallel-size",
    ),
    "decoder_first_pipeline_num_layers": _number(
        "Layers of the first stage, if others.", TOPOLOGY, "--pp-first", "--decoder-first-pipeline-num-layers"
    ),
    "decoder_last_pipeline_num_layers": _number(
        "Layers of the last stage, if others.", TOPOLOGY, "--pp-last", "--decoder-last-pipeline-num-layers"
    ),
    # what to believe
    "trust_reference": _flag(
        "Let the reference win where the checkpoint's own words contradict it. The summary records it.",
        TRUST,
        "--trust-reference",
    ),
    "strict": _flag(
        "Refuse NaN and infinite weights, ranks that disagree, items without a checksum and holes in data files, "
        "instead of naming them.",
        TRUST,
        "--strict",
    ),
    "values": _flag("Accept other dtypes where the values are equal after exact widening.", TRUST, "--values"),
    "witness": _choice(
        Literal["megatron-core", "transformers"],
        "Have A read by that library, too, and compare: megatron-core (it unpickles: only for checkpoints you trust) "
        "or transformers.",
        TRUST,
        "LIB",
    ),
    "like": _text(
        "A model to hold it against, a directory or org/name\\[@revision] on the Hub. verify: names, shapes, dtypes, "
        "index, config.json, ties and files of what another tool wrote, each with what comes of it where it is loaded, "
        "and no number. repair: one of the same base, whose numbers show what to undo.",
        TRUST,
        "MODEL",
    ),
    "forward": _flag(
        "Then run both models on a fixed batch of text and images with transformers, each in a process of its own, and "
        "compare logits: what the weights differ in and what computing them differs in are said apart. A Megatron side "
        "is converted to a temporary directory for it, and its language model run by megatron-core, too.",
        TRUST,
        "--forward",
    ),
    "layers": _number("With --forward: run the first N decoder layers alone, of models larger than the memory.", TRUST),
    "device": _choice(
        Literal["cpu", "cuda"], "With --forward: where the models are run, cpu or cuda.", TRUST, "DEVICE", "--device"
    ),
    "undo": Annotated[
        list[str] | None,
        typer.Option(
            "--undo",
            metavar="FAULT",
            help="Undo this fault, as verify names it, wherever in the model it may have happened. May be given "
            "several times.",
            rich_help_panel=TRUST,
        ),
    ],
    "read_back": _flag(
        "Read every byte again from the disk, past the system's memory, before the output takes its place.",
        TRUST,
        "--read-back",
    ),
    # the run
    "resume": _flag(
        "Keep what a run of the same, that was killed, has finished, once its checksums are found right.",
        RUN,
        "--resume/--no-resume",
    ),
    "on_disk": _text(
        "Really write both ways, in a temporary directory in DIR, or beside A; give it after A. Left out: in memory.",
        RUN,
        "[DIR]",
    ),
    "dry_run": _flag("Recognise, check and plan; write nothing.", RUN, "--dry-run"),
    "threads": _number("Threads that move data. Left out: chosen by the number of processors.", RUN),
    "memory": _text(
        "Memory to hold at most, such as 500MB: fewer threads, then smaller parts at a time. Left out: what the "
        "threads take.",
        RUN,
        "SIZE",
    ),
}
"""Field of an options dataclass -> its option."""

SHOWN: dict[str, Any] = {
    "as_json": _flag("Print one JSON document to stdout, everything else to stderr.", RUN, "--json"),
    "quiet": Annotated[
        bool,
        typer.Option("--quiet", "-q", metavar="", help="Say nothing but warnings and errors.", rich_help_panel=RUN),
    ],
    "verbose": _flag("Tell all that is known, and every difference.", RUN, "--verbose"),
    "debug": _flag("Show the traceback of an error.", RUN, "--debug"),
}
"""Options of every command that say what is shown, not what is done."""

ORDER = (READ, WRITTEN, TOPOLOGY, TRUST, RUN)

Command = Callable[..., "Report"]


def with_options(options: type) -> Callable[[Command], Callable[..., None]]:
    """Make a command of a function (arguments…, options, observer) -> Report.

    Args:
        options: the dataclass of which each field becomes an option. Keywords of the function are options, too.
    """

    def decorate(command: Command) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-2]
        positional = [parameter for parameter in own if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
        listed = {field.name: _parameter(field) for field in fields(options)}
        shown = {name: _keyword(name, False, kind) for name, kind in SHOWN.items()}

        def called(**given: Any) -> None:
            show = {name: given.pop(name) for name in shown}
            values = {name: given.pop(name) for name in listed}

            def call(observer: Observer) -> Report:
                asked = {name: value for name, value in values.items() if value is not None}
                return command(**given, options=options(**asked), observer=observer)

            raise typer.Exit(run(command.__name__, call, dry_run=values["dry_run"], **show))

        ordered = sorted([*listed.values(), *own[len(positional) :]], key=lambda p: ORDER.index(_panel(p)))
        parameters = [*positional, *ordered, *shown.values()]
        called.__name__, called.__doc__ = command.__name__, _unwrapped(inspect.getdoc(command) or "")
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        return called

    return decorate


def _unwrapped(text: str) -> str:
    """A docstring with a line for each paragraph: help is folded to the terminal, not to the source's width."""
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in text.split("\n\n"))


def _parameter(field: Field[Any]) -> inspect.Parameter:
    assert field.default is not MISSING
    default = field.default
    # typer wants a list for a repeated option, and a size as users spell it.
    if isinstance(default, tuple):
        default = None
    elif field.name == "max_shard_size":
        default = "5GB"
    return _keyword(field.name, default, OPTIONS[field.name])


def _keyword(name: str, default: object, kind: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _panel(parameter: inspect.Parameter) -> str:
    return str(parameter.annotation.__metadata__[0].rich_help_panel)
