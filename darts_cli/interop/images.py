"""Published state dictionaries of image networks: the network, and its images."""

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from darts_cli.config import Config, ImageDataConfig
from darts_cli.engine.task import DatasetInfo
from darts_cli.errors import CheckpointError
from darts_cli.genotype.types import Genotype
from darts_cli.interop.detected import DetectedNetwork, Shapes, shape_of
from darts_cli.spaces.cnn.data import datasets, folder
from darts_cli.spaces.cnn.data.augment import IMAGENET
from darts_cli.spaces.cnn.data.info import ImageInfo
from darts_cli.spaces.cnn.operations import build, is_reduction
from darts_cli.spaces.cnn.primitives import find_primitive

_CELL = re.compile(r"cells\.(\d{1,6})\.")
_MIXED = re.compile(r"cells\.\d+\._ops\.\d+\._ops\.")
_COUNTER = "num_batches_tracked"
_MOST_CELLS = 100

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
# Classes in the order of the data sets' numbers, which is that of the alphabet.
CIFAR_NAMES = {"cifar10": tuple(_CIFAR10.split()), "cifar100": tuple(_CIFAR100.split())}

_PHOTOGRAPH_SIZE = 224


class ImageInterop:
    """State dictionaries of the convolutional space."""

    alphas = (("alphas_normal", "normal"), ("alphas_reduce", "reduce"))
    """Names of the alphas of each cell, the usual one first."""
    tied: tuple[tuple[str, str], ...] = ()

    def holds(self, names: set[str]) -> bool:
        """Return whether these are names of such a network."""
        return "cells.0.preprocess1.op.1.weight" in names

    def detect(self, shapes: Shapes) -> DetectedNetwork:
        """Return the network that tensors of these shapes belong to.

        Raises:
            CheckpointError: naming the first tensor that is missing or cannot be.
        """
        layers, channels = _measure_cells(shapes)
        search = any(map(_MIXED.match, shapes))
        stem = "imagenet" if "stem0.0.weight" in shapes and not search else "cifar"
        first = "stem0.0.weight" if stem == "imagenet" else "stem.0.weight"
        width, image_channels, *_ = shape_of(shapes, first, 4)
        if image_channels not in {1, 3}:
            raise CheckpointError(
                f"{first}: found {image_channels} channels of images, expected 1 or 3"
            )
        auxiliary = any(name.startswith("auxiliary_head.") for name in shapes)
        network: dict[str, Any] = {"channels": channels, "layers": layers}
        if stem == "cifar":
            network["stem_multiplier"] = max(1, width // channels)
        if not search:
            network |= {"stem": stem, "auxiliary": 0.4 if auxiliary else 0.0}
        classes = shape_of(shapes, "classifier.weight", 2)[0]
        kind = "a supernet" if search else f"a network with {stem}'s stem"
        return DetectedNetwork(
            command="search" if search else "train",
            recipe=stem,
            network=network,
            outputs=classes,
            channels=image_channels,
            words=f"{kind}, {channels} channels, {layers} cells, {classes} classes"
            + (", with auxiliary head" if auxiliary else ""),
        )

    def fits(self, shapes: Shapes, genotype: Genotype) -> bool:
        """Return whether the first cell of each kind has the genotype's operations."""
        layers, channels = _measure_cells(shapes)
        for index in {0, layers // 3}:
            start = f"cells.{index}._ops."
            found = {
                name.removeprefix(start): shape
                for name, shape in shapes.items()
                if name.startswith(start) and not name.endswith(_COUNTER)
            }
            if found != _operation_shapes(
                genotype, channels, reduction=is_reduction(index, layers)
            ):
                return False
        return True

    def describe(
        self,
        detected: DetectedNetwork,
        config: Config,
        *,
        given: bool,
        classes: Sequence[str] | None,
    ) -> tuple[Config, DatasetInfo, str]:
        """Find what the network has to remember of its images, which is not in the file.

        Args:
            detected: The network.
            config: Names the images.
            given: Whether a user did; else they are CIFAR's where there are as many classes.
            classes: Names in the order of the logits, where a user gave them.

        Returns:
            The settings with the data, the facts, and what was taken for granted.

        Raises:
            CheckpointError: if there are other classes or channels than the network has.
            DataError: if the images are not there.
        """
        settings = config.data
        if not isinstance(settings, ImageDataConfig):
            raise TypeError("settings of another space given to the convolutional one")
        stem = detected.network.get("stem", "cifar")
        names = _class_names(detected, settings, given=given, stem=stem)
        known = next((name for name, of in CIFAR_NAMES.items() if set(of) == set(names or ())), "")
        if known and not given:
            settings = replace(settings, name=known)
        if stem != "imagenet" and given and not known:
            # How these were augmented is not known; as CIFAR's they may be too small for.
            settings = replace(settings, crop_padding=0, cutout=0)
            info = datasets.load(settings, device=torch.device("cpu"), search=False).info
        else:
            if detected.channels == 1:
                raise CheckpointError(
                    "found a network of grey images, whose mean and deviation nobody has "
                    "published; name the images by --data DIR"
                )
            mean, std = IMAGENET if stem == "imagenet" else datasets.CIFAR[known or "cifar10"]
            usual = _PHOTOGRAPH_SIZE if stem == "imagenet" else datasets.CIFAR_SIZE
            info = ImageInfo(
                name=settings.name,
                classes=tuple(names or map(str, range(detected.outputs))),
                channels=detected.channels,
                size=settings.image_size or usual,
                mean=mean,
                std=std,
            )
        if classes is not None:
            if given:
                folder.check_classes(classes, info.classes, "--classes")
            info = replace(info, classes=tuple(classes))
        _check(detected, info)
        note = "classes are numbered: name them by --data DIR or --classes" if not names else ""
        return replace(config, data=settings), asdict(info), "" if classes else note


def _class_names(
    detected: DetectedNetwork, settings: ImageDataConfig, *, given: bool, stem: str
) -> Sequence[str] | None:
    """Return the names of the classes, where they can be known without reading an image."""
    if not given:
        found = [names for names in CIFAR_NAMES.values() if len(names) == detected.outputs]
        return found[0] if found and stem == "cifar" else None
    if settings.name in CIFAR_NAMES:
        return CIFAR_NAMES[settings.name]
    place = Path(settings.name).expanduser()
    if settings.name not in datasets.DATASETS and place.is_dir():
        return folder.find_images(place).classes
    return datasets.find(settings, search=False).classes


def _check(detected: DetectedNetwork, info: ImageInfo) -> None:
    if len(info.classes) != detected.outputs:
        raise CheckpointError(
            f"classifier.weight: found {detected.outputs} classes, expected the "
            f"{len(info.classes)} of {info.name}; name other images by --data, or --classes"
        )
    if info.channels != detected.channels:
        raise CheckpointError(
            f"stem: found a network of images of {detected.channels} channels, expected the "
            f"{info.channels} of {info.name}; name other images by --data"
        )


def _measure_cells(shapes: Shapes) -> tuple[int, int]:
    """Return the number of cells, and the channels of the first if it were no reduction."""
    numbers = {int(match[1]) for match in map(_CELL.match, shapes) if match}
    if len(numbers) > _MOST_CELLS:
        raise CheckpointError(
            f"cells: found {len(numbers)} of them, expected {_MOST_CELLS} or fewer"
        )
    for number in range(len(numbers)):
        if number not in numbers:
            raise CheckpointError(
                f"cells.{number}: found no such cell before cells.{max(numbers)}, expected all"
            )
    channels = shape_of(shapes, "cells.0.preprocess1.op.1.weight", 4)[0]
    return len(numbers), max(1, channels // 2) if is_reduction(0, len(numbers)) else channels


def _operation_shapes(genotype: Genotype, channels: int, *, reduction: bool) -> Shapes:
    """Return the shapes of the operations of the first normal or reduction cell."""
    shapes = {}
    channels *= 2 if reduction else 1
    for number, edge in enumerate(genotype.cells["reduce" if reduction else "normal"].edges):
        stride = 2 if reduction and edge.source < 2 else 1
        with torch.device("meta"):
            module = build(find_primitive(edge.operation), channels, stride)
        for name, tensor in module.state_dict().items():
            if not name.endswith(_COUNTER):
                shapes[f"{number}.{name}"] = tuple(tensor.shape)
    return shapes
