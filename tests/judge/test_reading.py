"""Values as replies and tools write them: text, numbers, dates and times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.judge import moments
from cm2.judge.moments import Clock, Day
from cm2.judge.statement import number_of, statement
from cm2.judge.text import fold, holds


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("It costs $1,250.00 in total.", [1250]),
        ("1.250,50 € or 12,50 €", [1250.5, 12.5]),
        ("Take 15 of them, or 5.7.", [15, 5.7]),
        ("I have 3.", [3]),
        ("twelve eggs, twenty-one cups and three hundred grams", [12, 21, 300]),
        ("-5 degrees, from 5-7", [-5, 5, 7]),
        ("5% of 10km and 2k", [5, 10, 2000]),
        ("rated (4.3)", [4.3]),
        ("see A5, 5f3a, v1.2.3 and the 5th", []),
        ("on 2019-03-05 at 5:30, on 3/5/2019, March 5 and 5 pm", []),
        ("£5\u00a0000 no, \uff15", [5, 0, 5]),
    ],
)
def test_numbers_are_whole_tokens(text, numbers):
    assert [number for number, _ in statement(text).numbers] == pytest.approx(numbers)


def test_a_long_decimal_may_be_stated_rounded_and_no_other():
    assert statement("about 23.46 km").states_number(23.4567)
    assert statement("about 23.5 km").states_number(23.4567)
    assert not statement("about 23 km").states_number(23.4567)
    assert not statement("about 23.4 km").states_number(23.4567)
    assert not statement("about 5.7").states_number(5)
    assert not statement("costs 19.5").states_number(19.49)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_number_is_stated_by_its_own_spellings_and_by_no_other_number(number, other):
    for spelling in (f"{number}", f"{number:,}", f"${number:,}.00", f"{number}.0"):
        said = statement(f"It is {spelling}, that is all.")
        assert said.states_number(number)
        assert said.states_number(other) is (other == number)


def test_number_of_reads_a_whole_text_only():
    assert number_of("$5.00") == 5 and number_of("five") == 5 and number_of("1,250") == 1250
    assert number_of("5 apples") is None and number_of("x") is None and number_of("") is None


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2019-03-01", Day(2019, 3, 1)),
        ("2019-03-01T16:00:00Z", Day(2019, 3, 1)),
        ("March 1st", Day(None, 3, 1)),
        ("the 1st of March, 2019", Day(2019, 3, 1)),
        ("Mar. 1, 2019", Day(2019, 3, 1)),
        ("March first", Day(None, 3, 1)),
        ("3/1", Day(None, 3, 1)),
        ("3/1/2019", Day(2019, 3, 1)),
        ("03-01-19", Day(2019, 3, 1)),
        ("13/2/2019", Day(2019, 2, 13)),
    ],
)
def test_dates_in_several_spellings(text, day):
    assert moments.dates(f"On {text}.")[0] == day
    assert moments.same_day(Day(2019, 3, 1), day) is (day.day == 1)


@pytest.mark.parametrize(
    "text", ["March 2nd", "April 1st", "March 1, 2020", "1/3", "nothing", "version 3.1", "score 13/45"]
)
def test_another_date_is_not_stated(text):
    assert not statement(text).states_date(Day(2019, 3, 1))


@pytest.mark.parametrize(
    "text",
    ["16:00", "4 pm", "4pm", "4:00 PM", "four p.m.", "4 o'clock", "at 4", "4 in the afternoon", "16:00:00", "4:00"],
)
def test_times_in_several_spellings(text):
    assert statement(f"It starts {text}, be there").states_time(Clock(960, True))


@pytest.mark.parametrize("text", ["4 am", "04:00", "4:30 pm", "5 pm", "at 4.50", "at 5", "14:00", "16 items", "noon"])
def test_another_time_is_not_stated(text):
    assert not statement(f"It starts {text}, be there").states_time(Clock(960, True))


def test_half_hours_noon_and_midnight():
    assert statement("half past four").states_time(Clock(16 * 60 + 30, True))
    assert statement("quarter to 5 pm").states_time(Clock(16 * 60 + 45, True))
    assert statement("12 am").states_time(Clock(0, True)) and not statement("12 pm").states_time(Clock(0, True))
    assert moments.time_of("10:30") == Clock(630, True), "a tool's HH:MM is on the 24-hour clock"
    assert not statement("10:30 pm").states_time(Clock(630, True))


@given(st.integers(0, 1439), st.integers(0, 1439))
def test_a_time_is_stated_by_its_spellings_and_by_no_other_time(minutes, other):
    hour, minute = divmod(minutes, 60)
    twelve = f"{(hour + 11) % 12 + 1}:{minute:02} {'am' if hour < 12 else 'pm'}"
    for spelling in (f"{hour:02}:{minute:02}:00", twelve):
        value = moments.time_of(spelling)
        assert value == Clock(minutes, True)
    assert statement(f"At {twelve}.").states_time(Clock(other, True)) is (other == minutes)


def test_folding_ignores_case_space_punctuation_and_invisible_characters():
    assert fold("Dr.\u00a0Smith\u2019s  CORTADO-2345") == fold("dr smith's cortado\u200b 2345")
    assert fold("1,000.50 at 16:00.") == "1000.50 at 16:00"
    assert fold("C++") != fold("C#") != fold("C")


@pytest.mark.parametrize(
    ("text", "part", "expected"),
    [
        ("room 15", "5", False),
        ("5.7 stars", "5", False),
        ("room 5, please", "5", True),
        ("the catalogue", "cat", False),
        ("我在北京工作", "北京", True),
        ("anything", "", False),
    ],
)
def test_words_are_whole(text, part, expected):
    assert holds(fold(text), fold(part)) is expected


@given(st.text(max_size=60))
def test_reading_any_text_never_fails_and_folding_is_stable(text):
    said = statement(text)
    assert isinstance(said.numbers, list) and isinstance(said.questions, list)
    moments.dates(text), moments.times(text)
    assert fold(fold(text)) == fold(text)
