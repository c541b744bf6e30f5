"""Text of guests cannot leave its line, move a cursor, give a command or outgrow its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_qwen.escaping import SHOWN_CHARACTERS, escaped, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with ünïcode and 日本", "plain, with ünïcode and 日本"),
        ("two\r\nlines\ttab", r"two\r\nlines\ttab"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("user\u202egnp.exe", r"user\u202egnp.exe"),
        ("lone \udc80 surrogate", r"lone \udc80 surrogate"),
        ("line\u2028separator", r"line\u2028separator"),
        ("::error::owned", r":\x3aerror::owned"),
        ("  ::set-output name=x::y", r"  :\x3aset-output name=x::y"),
        ("a ##[error] b ##vso[task.complete]", r"a #\x23[error] b #\x23vso[task.complete]"),
        ("std::vector", "std::vector"),
        ("", ""),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_long_text_is_cut_with_an_ellipsis_at_its_end() -> None:
    assert escaped("x" * 200) == "x" * 200
    assert escaped("x" * 201) == "x" * 199 + "…"
    assert escaped("abc", 2) == "a…"
    assert len(escaped("\x00" * 1_000_000)) == SHOWN_CHARACTERS


@given(st.text(alphabet=st.characters()), st.integers(min_value=1, max_value=60))
def test_whatever_comes_the_result_is_printable_and_short(text: str, limit: int) -> None:
    shown = escaped(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert "##" not in shown
    assert not shown.lstrip().startswith("::")


@given(st.text(max_size=40))
def test_escaping_twice_changes_nothing_more(text: str) -> None:
    assert escaped(escaped(text, 400), 400) == escaped(text, 400)


def test_a_log_keeps_its_lines() -> None:
    log = b"INFO: up\r\n\x1b[31mred\x1b[0m\n  ::error::x\n\xff \xc3\xa9\n"
    assert printable(log) == "INFO: up\n\\x1b[31mred\\x1b[0m\n  :\\x3aerror::x\n\\xff é\n"


def test_a_log_of_blanks_takes_no_longer_than_its_length() -> None:
    assert len(printable(b" \n" * 500_000 + b"\t" * 500_000)) == 2_000_000
