"""Amounts of memory as people write them."""

import pytest

from recyclery.common.units import format_bytes, parse_size


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1GiB", 1 << 30),
        ("1G", 1 << 30),
        ("1gb", 1 << 30),
        ("768m", 768 << 20),
        ("768 MiB", 768 << 20),
        ("1.5g", 1536 << 20),
        ("512k", 512 << 10),
        ("1073741824", 1 << 30),
        ("1024B", 1024),
    ],
)
def test_every_usual_spelling_is_read_as_binary_units(text: str, amount: int) -> None:
    assert parse_size(text) == amount


@pytest.mark.parametrize("text", ["", "much", "-1G", "1GG", "1 G i B", "1e9", "0x10", "G"])
def test_anything_else_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory"):
        parse_size(text)


@pytest.mark.parametrize("unit", ["", "T"])
def test_more_than_a_float_holds_is_refused_too(unit: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory"):
        parse_size("9" * 400 + unit)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(1 << 30, "1 GiB"), (1280 << 20, "1.25 GiB"), (312 << 20, "312 MiB"), (4096, "4 KiB"), (0, "0 KiB")],
)
def test_amounts_are_shown_in_the_unit_that_keeps_them_short(amount: int, text: str) -> None:
    assert format_bytes(amount) == text
