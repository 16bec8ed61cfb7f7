"""The flags that commands share, with their help texts."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

RUN, NETWORK, DATA, DEVICE = "Run", "Network and optimizers", "Data", "Device"


class Space(StrEnum):
    """The spaces that can be searched."""

    CNN = "cnn"
    RNN = "rnn"


class Hypergradient(StrEnum):
    """How the second order's product is computed."""

    FINITE_DIFFERENCE = "finite-difference"
    EXACT = "exact"


class Order(StrEnum):
    """Of the hypergradient."""

    FIRST = "first"
    SECOND = "second"


class Memory(StrEnum):
    """What the way back finds kept."""

    FAST = "fast"
    SAVE = "save"


class PrecisionName(StrEnum):
    """Of products and convolutions."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"


class Show(StrEnum):
    """What `darts viz` draws of a run."""

    CELLS = "cells"
    ALPHAS = "alphas"
    LINES = "lines"
    CURVES = "curves"
    SIGNALS = "signals"


class TextFormat(StrEnum):
    """What `darts viz` prints."""

    DOT = "dot"
    MERMAID = "mermaid"


class ThemeName(StrEnum):
    """Of pictures."""

    LIGHT = "light"
    DARK = "dark"


Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|DIR",
        help="Images: cifar10, cifar100, digits, or DIR with CLASS/* or train/CLASS/*. Text: ptb, "
        "wikitext2, pydoc, or DIR with train.txt, valid.txt, test.txt.",
        rich_help_panel=DATA,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Resize images to this side in pixels.", rich_help_panel=DATA),
]
MinCount = Annotated[
    int | None,
    typer.Option(help="Words that are rarer become <unk>.", rich_help_panel=DATA),
]
BatchSize = Annotated[int | None, typer.Option(help="Examples in a step.", rich_help_panel=DATA)]
Out = Annotated[
    Path | None,
    typer.Option(
        help="New directory of the run.",
        show_default="runs/...",
        rich_help_panel=RUN,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="All randomness follows from it.", show_default="0", rich_help_panel=RUN),
]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training data.", rich_help_panel=RUN)
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="YAML file of settings, such as a run's config.yaml.", rich_help_panel=RUN
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change any setting; repeatable.", rich_help_panel=RUN
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="Set of defaults.",
        show_default="named like the data, else cifar or ptb",
        rich_help_panel=RUN,
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Go on with the run in DIR under its settings.", rich_help_panel=RUN
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(help="Stop after this many steps in all, state saved.", rich_help_panel=RUN),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        metavar="N",
        help="Minutes between checkpoints in an epoch, or steps as in 500steps.",
        rich_help_panel=RUN,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan as JSON and do nothing.", rich_help_panel=RUN),
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="As --dry-run, with time, memory and the largest batch from a few steps.",
        rich_help_panel=RUN,
    ),
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard", help="Write every epoch for TensorBoard as well.", rich_help_panel=RUN
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="Show nothing but results and errors.", rich_help_panel=RUN),
]
NoLive = Annotated[
    bool,
    typer.Option("--no-live", help="Plain lines in place of the display.", rich_help_panel=RUN),
]
Gpu = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="CUDA device N.",
        show_default="the best device there is",
        rich_help_panel=DEVICE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, mps, cuda or cuda:N.", rich_help_panel=DEVICE),
]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(
        metavar="NAME",
        help="Of products: fp32, tf32 (CUDA), bf16 or fp16.",
        show_default="fp32",
        rich_help_panel=DEVICE,
    ),
]
Accumulate = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Compute a batch in N parts, for less memory.",
        show_default="1",
        rich_help_panel=DEVICE,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the cells: takes minutes, for CUDA.", rich_help_panel=DEVICE
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="The same bits again on the same GPU: slower algorithms, or an error.",
        rich_help_panel=DEVICE,
    ),
]
SyncBatchNorm = Annotated[
    bool | None,
    typer.Option(
        "--sync-batchnorm",
        help="BatchNorm over the images of all processes.",
        rich_help_panel=DEVICE,
    ),
]
Channels = Annotated[
    int | None, typer.Option(help="Of the first convolutional cells.", rich_help_panel=NETWORK)
]
Width = Annotated[
    int | None,
    typer.Option(help="Of embedding and recurrent states.", rich_help_panel=NETWORK),
]
Layers = Annotated[int | None, typer.Option(help="Convolutional cells.", rich_help_panel=NETWORK)]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="First learning rate of the weights.", rich_help_panel=NETWORK),
]
Output = Annotated[
    Path | None, typer.Option(help="File to write.", show_default="beside what is read")
]
OutputHere = Annotated[
    Path | None,
    typer.Option(help="File to write.", show_default="of the same name, in the present folder"),
]
