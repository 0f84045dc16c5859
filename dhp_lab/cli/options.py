"""Command-line options that are the fields of a dataclass: names, types and defaults stand there alone.

    @app.command()
    @options_from(TrainingConfig, {"data_path": "Folder of training photos.", "lr": "Learning rate of Adam."})
    def train(config: TrainingConfig) -> None:
        ...

The table says which fields are options, in the order of `--help`, and what each is for.

| type of the field      | option                                                                |
|------------------------|-----------------------------------------------------------------------|
| bool, False by default | a flag, `--resume`                                                    |
| bool or None           | a pair of flags, `--use_pretrained_vae / --no-use_pretrained_vae`     |
| tuple of numbers       | numbers separated by commas, `--steps 0,1,4`                          |
| tuple of words         | words separated by commas, `--codecs jpeg,webp`, or `none`            |
| any other              | a value of that type                                                  |
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

Config = TypeVar("Config")
NONE = "none"  # an empty tuple of words


def options_from(
    config_type: type[Config], table: Mapping[str, str | OptionInfo]
) -> Callable[[Callable[[Config], None]], Callable[..., None]]:
    """Return a decorator that turns a function of a configuration into one of command-line options.

    Args:
        config_type: a dataclass whose fields without a default are required options.
        table: by the name of a field its help text, or a whole `typer.Option`. Fields that are not in it keep
            their defaults.

    Raises:
        ValueError: the table has a name that is no field, or lacks a field that has no default.
    """
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if wrong := (table.keys() - fields.keys()) | (required - table.keys()):
        names = ", ".join(sorted(wrong))
        raise ValueError(f"the options of {config_type.__name__} do not fit its fields: {names}")
    types = get_type_hints(config_type)
    parameters = [_parameter(fields[name], types[name], option) for name, option in table.items()]

    def decorate(command: Callable[[Config], None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            settings = {name: _parsed(name, value, types[name]) for name, value in values.items()}
            command(config_type(**settings))

        run.__name__ = command.__name__
        run.__doc__ = command.__doc__
        run.__signature__ = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(field: dataclasses.Field, kind: Any, option: str | OptionInfo) -> inspect.Parameter:
    """A field as the parameter of a function, from which typer makes an option."""
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    if get_origin(kind) is tuple:
        kind = str
        default = _joined(default) if isinstance(default, tuple) else default
    if isinstance(option, str):
        option = typer.Option(_flags(field.name, kind), help=option)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _flags(name: str, kind: Any) -> str:
    """The option's name, or the pair of names of a switch whose default is neither."""
    return f"--{name}/--no-{name}" if kind == bool | None else f"--{name}"


def _joined(values: tuple) -> str:
    """A tuple as it is written on the command line."""
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ",".join(words) or NONE


def _parsed(name: str, value: Any, kind: Any) -> Any:
    """The value of a field, from that of its option.

    Raises:
        ValueError: a tuple of numbers has a word that is none.
    """
    if get_origin(kind) is not tuple:
        return value
    convert, _ = get_args(kind)  # (int, ...)
    if convert is str and value == NONE:
        return ()
    try:
        return tuple(convert(word) for word in value.split(","))
    except ValueError:
        raise ValueError(
            f"--{name} takes numbers separated by commas, such as 0,1,4; got '{value}'"
        ) from None
