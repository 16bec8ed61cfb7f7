"""Recipes: sets of defaults, with the paper's appendix that each number comes from."""

import reprlib
from collections.abc import Mapping
from dataclasses import replace

from darts_cli.config import (
    AlphasConfig,
    Config,
    ConvNetworkConfig,
    ImageDataConfig,
    RecurrentNetworkConfig,
    TextDataConfig,
    WeightsConfig,
)
from darts_cli.errors import ConfigError

_SEARCH = Config(
    recipe="cifar",
    data=ImageDataConfig(),
    network=ConvNetworkConfig(),
    weights=WeightsConfig(),
    alphas=AlphasConfig(),
)

# For small networks on small texts, for which the paper's dropout is too strong.
_LIGHT = {
    "dropout_output": 0.3,
    "dropout_hidden": 0.1,
    "dropout_input": 0.3,
    "dropout_embedding": 0.1,
}

_TEXT_SEARCH = Config(
    space="rnn",
    recipe="ptb",
    data=TextDataConfig(batch_size=256, segment_spread=0.0),
    network=RecurrentNetworkConfig(),
    weights=WeightsConfig(
        lr=20.0, lr_min=0.0, schedule="constant", momentum=0.0, weight_decay=5e-7, clip=0.25
    ),
    alphas=AlphasConfig(lr=3e-3, betas=(0.9, 0.999), virtual_clip=0.25),
)

_TEXT_TRAIN = Config(
    space="rnn",
    recipe="ptb",
    epochs=3600,
    data=TextDataConfig(),
    network=RecurrentNetworkConfig(width=850, dropout_words=0.1),
    weights=replace(
        _TEXT_SEARCH.weights,
        weight_decay=8e-7,
        averaging_patience=5,
        # About three times the loss of a uniform guess over 10,000 words, log(10,000) = 9.2.
        loss_limit=30.0,
        rollbacks=5,
    ),
)

_TRAIN = Config(
    recipe="cifar",
    epochs=600,
    data=ImageDataConfig(batch_size=96, cutout=16),
    network=ConvNetworkConfig(channels=36, layers=20, auxiliary=0.4, drop_path=0.2),
    weights=WeightsConfig(lr_min=0.0),
)

# Recipes by name for each command and space; the first is the default.
RECIPES: dict[str, dict[str, dict[str, Config]]] = {
    "search": {
        "cnn": {
            # Appendix A.1.
            "cifar": _SEARCH,
            # Not the paper's: sized so that two CPU cores search digits in two minutes.
            "digits": replace(
                _SEARCH,
                recipe="digits",
                epochs=8,
                data=ImageDataConfig(name="digits", crop_padding=1, flip=False),
                network=ConvNetworkConfig(channels=4, layers=5),
                alphas=AlphasConfig(lr=3e-3),
            ),
        },
        "rnn": {
            # Appendix A.4.
            "ptb": _TEXT_SEARCH,
            "wikitext2": replace(
                _TEXT_SEARCH,
                recipe="wikitext2",
                data=replace(_TEXT_SEARCH.data, name="wikitext2"),
            ),
            # Not the paper's: sized so that two CPU cores search pydoc in two or three minutes. At
            # a learning rate of 20 so small a network diverges in its second epoch.
            "pydoc": replace(
                _TEXT_SEARCH,
                recipe="pydoc",
                epochs=2,
                data=TextDataConfig(name="pydoc", batch_size=32, segment_spread=0.0, min_count=3),
                network=RecurrentNetworkConfig(width=32, **_LIGHT),
                weights=replace(_TEXT_SEARCH.weights, lr=5.0),
            ),
        },
    },
    "train": {
        "cnn": {
            # Appendix A.2.
            "cifar": _TRAIN,
            # Appendix A.3.
            "imagenet": replace(
                _TRAIN,
                recipe="imagenet",
                epochs=250,
                data=ImageDataConfig(
                    name="imagenet",
                    batch_size=128,
                    augmentation="imagenet",
                    image_size=224,
                    workers=4,
                ),
                network=ConvNetworkConfig(stem="imagenet", channels=48, layers=14, auxiliary=0.4),
                weights=WeightsConfig(
                    lr=0.1,
                    lr_min=0.0,
                    schedule="exponential",
                    weight_decay=3e-5,
                    label_smoothing=0.1,
                ),
            ),
            # Not the paper's: sized for digits on two CPU cores.
            "digits": replace(
                _TRAIN,
                recipe="digits",
                epochs=30,
                data=ImageDataConfig(
                    name="digits", batch_size=64, crop_padding=1, flip=False, cutout=2
                ),
                network=ConvNetworkConfig(channels=8, layers=5, auxiliary=0.4, drop_path=0.1),
            ),
        },
        "rnn": {
            # Appendix A.4.
            "ptb": _TEXT_TRAIN,
            "wikitext2": replace(
                _TEXT_TRAIN,
                recipe="wikitext2",
                data=TextDataConfig(name="wikitext2"),
                network=RecurrentNetworkConfig(width=700, dropout_words=0.1, dropout_hidden=0.15),
                weights=replace(_TEXT_TRAIN.weights, weight_decay=5e-7),
            ),
            # Not the paper's: sized so that two CPU cores train on pydoc in a minute.
            "pydoc": replace(
                _TEXT_TRAIN,
                recipe="pydoc",
                epochs=4,
                data=TextDataConfig(name="pydoc", batch_size=32, min_count=3),
                network=RecurrentNetworkConfig(width=64, **_LIGHT),
                weights=replace(_TEXT_TRAIN.weights, lr=10.0),
            ),
        },
    },
}


def choose(recipes: Mapping[str, Config], name: str | None, data: str | None, what: str) -> Config:
    """Return the recipe of a name, or else the one named like the data, or else the first.

    Args:
        recipes: Recipes by name.
        name: What `--recipe` says.
        data: What `--data` says.
        what: What the recipes are for, for errors.

    Raises:
        ConfigError: if there is no such recipe.
    """
    if name is None:
        name = data if isinstance(data, str) and data in recipes else next(iter(recipes))
    # A file of settings may say anything.
    if not isinstance(name, str) or name not in recipes:
        found = name if isinstance(name, str) else reprlib.repr(name)
        raise ConfigError(
            f"--recipe {found}: no such recipe for {what}, expected one of {', '.join(recipes)}"
        )
    return recipes[name]
