"""Table artifacts: one row per figure, four significant digits, no secrets."""

from __future__ import annotations

from flows.tables import table_row, vertical
from mirnet.results import ImageFate


def test_one_row_per_figure_and_one_column_per_stage() -> None:
    train = {"cpu_hours": 0.0431521, "currency": "EUR", "note": None}
    rows = vertical({"train": train, "evaluate": {"cpu_hours": 2, "note": None}})
    assert rows == [
        {"figure": "cpu_hours", "train": 0.04315, "evaluate": 2},
        {"figure": "currency", "train": "EUR", "evaluate": ""},
    ]


def test_zero_and_false_are_values() -> None:
    assert [row["value"] for row in vertical({"value": {"failed": 0, "harmful": False}})] == [
        0,
        False,
    ]


def test_rows_of_a_model_have_no_secrets_and_only_the_wanted_fields() -> None:
    image = ImageFate(input="a\n.png", fate="failed", reason="https://h/?sig=sesame")
    row = table_row(image, without=frozenset({"output", "luminance_before", "luminance_after"}))
    assert row == {"input": "a\\n.png", "fate": "failed", "reason": "https://h/?***"}
