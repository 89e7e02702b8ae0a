"""Options of a command made from the query of a route: the same names, ranges and words, in one place."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from service.commands import Options

_PREFIX: Final = "query."


def add_parameters(
    parser: argparse.ArgumentParser, query: type[BaseModel], route: str, without: Collection[str] = ()
) -> None:
    """An option for each parameter of `query`, apart from some, in a group of their own."""
    group = parser.add_argument_group(f"parameters of POST {route}")
    for name, schema in query.model_json_schema()["properties"].items():
        if name in without:
            continue
        choices = schema.get("enum") or next((part["enum"] for part in schema.get("anyOf", []) if "enum" in part), None)
        whole = choices if choices and len(choices) > 1 and not _numbers(schema) else None
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=_PREFIX + name,
            choices=None if whole is None else [str(choice) for choice in whole],
            metavar=_placeholder(choices) if _numbers(schema) else None if whole else name.upper(),
            help=schema.get("description", "").replace("%", "%%"),
        )


def parameters_of(options: Options, query: type[BaseModel]) -> dict[str, str]:
    """Those given, as text.

    Raises:
        ValueError: one is wrong; one line that names its option.
    """
    given = {
        name.removeprefix(_PREFIX): value
        for name, value in options.items()
        if name.startswith(_PREFIX) and value is not None
    }
    try:
        query.model_validate({name: _as_sent(query, name, value) for name, value in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ValueError(f"--{name.replace('_', '-')} {given.get(name, '')}: {first['msg']}") from error
    return given


def _as_sent(query: type[BaseModel], name: str, value: str) -> Any:
    """As FastAPI hands it on: a parameter that may be repeated is a list."""
    return [value] if query.model_json_schema()["properties"][name].get("type") == "array" else value


def _placeholder(choices: Sequence[object] | None) -> str:
    """Of a number: the words that may stand in its place are named, too."""
    words = [choice for choice in choices or () if isinstance(choice, str)]
    return f"{{{','.join(words)},NUMBER}}" if words else "NUMBER"


def _numbers(schema: Mapping[str, Any]) -> bool:
    kinds = [schema, *schema.get("anyOf", [])]
    return any(kind.get("type") in ("number", "integer") for kind in kinds)
