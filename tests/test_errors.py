"""One line of an error or of a program's output, for messages."""

from __future__ import annotations

from mirnet.errors import first_line, last_line


def test_the_first_line_of_an_error_without_a_message_is_its_type() -> None:
    assert first_line(ValueError("\n one \n two")) == "one "
    assert first_line(TimeoutError()) == "TimeoutError"


def test_the_last_line_is_not_blank() -> None:
    assert last_line("Traceback:\n  File\n ValueError: bad\n\n") == "ValueError: bad"
    assert last_line("\n") == ""
