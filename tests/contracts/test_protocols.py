"""Protocols between processes. Workers, governor and commands may be of different versions."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from contracts import product
from contracts.frozen import assert_frozen


def fields(struct: msgspec.inspect.StructType, path: str) -> Iterator[str]:
    """Yield the fields of a struct and of the structs in it."""
    for field in struct.fields:
        here = f"{path}{field.encode_name}"
        default = "" if field.required else f" = {default_of(field)!r}"
        yield f"{here}: {name_type(field.type)}{default}"
        for inner, end in structs_in(field.type, here):
            yield from fields(inner, f"{end}.")


def default_of(field: msgspec.inspect.Field) -> Any:
    """Return the default of an optional field."""
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def name_type(kind: msgspec.inspect.Type) -> str:
    """Return the name of a type in JSON terms."""
    match kind:
        case msgspec.inspect.UnionType(types=types):
            return "|".join(sorted(name_type(each) for each in types))
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
            return f"[{name_type(item)}]"
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return f"{{{name_type(key)}: {name_type(value)}}}"
        case msgspec.inspect.LiteralType(values=values):
            return "|".join(sorted(map(repr, values)))
        case msgspec.inspect.StructType():
            return "object"
        case msgspec.inspect.NoneType():
            return "null"
        case _:
            return type(kind).__name__.removesuffix("Type").lower()


def structs_in(kind: msgspec.inspect.Type, path: str) -> Iterator[tuple[msgspec.inspect.StructType, str]]:
    """Yield the structs in a field, with their paths."""
    match kind:
        case msgspec.inspect.StructType():
            yield kind, path
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
            yield from structs_in(item, f"{path}[]")
        case msgspec.inspect.DictType(value_type=value):
            yield from structs_in(value, f"{path}.*")
        case msgspec.inspect.UnionType(types=types):
            for each in types:
                yield from structs_in(each, path)


@pytest.mark.parametrize("kind", product.LINK_MESSAGES)
def test_a_message_between_worker_and_governor_has_the_frozen_fields(kind: str) -> None:
    found = [msgspec.inspect.type_info(message) for message in product.LINK_MESSAGES[kind]]
    lines = [
        f"{struct.tag} {line}"
        for struct in found
        if isinstance(struct, msgspec.inspect.StructType)
        for line in [f"is named by the field {struct.tag_field}", *fields(struct, "")]
    ]
    assert_frozen("link", lines, f"{kind} ")


def test_worker_and_governor_share_the_frozen_constants() -> None:
    assert_frozen("link", [f"{name}: {value}" for name, value in product.link_constants().items()], "the ")


@pytest.mark.parametrize(
    ("kind", "packet"),
    [
        ("report", b'{"type":"pulse","pool":"slow","pid":1,"sent":2.5,"later":{}}'),
        ("request", b'{"type":"retire","pid":20,"later":[1]}'),
        ("reply", b'{"type":"refused","reason":"no","later":null}'),
    ],
)
def test_a_message_with_an_unknown_field_is_accepted(kind: str, packet: bytes) -> None:
    message = product.decode_link(kind, packet)
    assert not hasattr(message, "later")


def test_the_control_socket_has_the_frozen_commands_and_fields() -> None:
    asked = msgspec.inspect.type_info(product.CONTROL_REQUEST)
    assert isinstance(asked, msgspec.inspect.StructType)
    lines = [f"request {line}" for line in fields(asked, "")]
    for command, answers in product.control_answers().items():
        for answer in answers:
            found = msgspec.inspect.type_info(answer)
            assert isinstance(found, msgspec.inspect.StructType)
            # The status document has a contract of its own.
            told = ["the status document"] if answer is product.STATUS_ANSWER else fields(found, "")
            lines += [f"{command} -> {line}" for line in told]
    assert_frozen("control_socket", lines)


def test_the_http_server_has_the_frozen_paths() -> None:
    assert_frozen("http_paths", product.http_paths())
