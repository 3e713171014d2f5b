"""Every rule on a good row and on rows spoiled by hand."""

from __future__ import annotations

import copy
import json

import pytest
from row_builders import TOOL, call, nemotron, openai, silent, think

from cm2.curate import RULES, check_row, make_profile
from cm2.curate.finding import MOST
from cm2.errors import ConfigError

PUBLISHED = make_profile("published")


def rules(row, profile=PUBLISHED) -> set[str]:
    return {finding.rule for finding in check_row(row, profile).violations}


def flags(row, profile=PUBLISHED) -> set[str]:
    found = check_row(row, profile)
    assert found.kept, found.violations
    return {finding.rule for finding in found.flags}


def with_call(arguments, **changes) -> dict:
    row = openai()
    row["messages"][2]["tool_calls"] = [call(arguments=arguments, **changes)]
    return row


def with_messages(*messages) -> dict:
    return openai(messages=[{"role": role, **rest} for role, rest in messages])


def with_content(index: int, content) -> dict:
    row = openai()
    row["messages"][index]["content"] = content
    return row


@pytest.mark.parametrize("row", [openai(), nemotron()], ids=["openai", "nemotron"])
def test_a_good_row_passes_every_rule_of_both_profiles_without_a_flag(row):
    for profile in (PUBLISHED, make_profile()):
        found = check_row(row, profile)
        assert found.violations == [] and found.flags == []


def test_a_log_without_thinking_passes_by_default_but_not_as_published():
    assert rules(silent(), make_profile()) == set()
    assert rules(silent()) == {"think_tags", "tool_response_json_valid"}


# rule 1


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ("{}", "tool_schema"),
        ('{"place": 3}', "tool_schema"),
        ('{"place": ["Roma"]}', "tool_schema"),
        ('{"place": "Roma", "people": "2"}', "tool_schema"),
        ('{"place": "Roma", "people": true}', "tool_schema"),
        ('{"place": "Roma", "table": 1}', "tool_schema"),
        ('{"place": "Roma", "when": 7}', "tool_schema"),
        ('["Roma"]', "tool_schema"),
        ('"{\\"place\\": \\"Roma\\"}"', "tool_schema"),
        ("{'place': 'Roma'}", "tool_schema"),
        ('{"place": "Roma"', "tool_schema"),
        ('{"place": "Roma"} thanks', "tool_schema"),
        ("", "tool_schema"),
        ("null", "tool_schema"),
        ('{"place": "Paris"}', "tool_schema_strict"),
        ('{"place": "Roma", "people": 0}', "tool_schema_strict"),
        ('{"place": NaN}', "tool_schema_strict"),
        ('{"a":' * 500 + "1" + "}" * 500, "tool_schema"),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, "tool_schema"),
        ('{"place": ' + "9" * 6_000 + "}", "tool_schema"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else value,
)
def test_arguments_that_break_the_schema_are_told(arguments, rule):
    assert rule in rules(with_call(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        '{"place": "Roma", "people": 2}',
        '{"place": "Roma", "when": "today"}',
        '{"place": "Roma", "when": {"day": 1}}',
        {"place": "Roma"},
    ],
)
def test_arguments_that_fit_pass_any_of_included(arguments):
    assert rules(with_call(arguments)) == set()


def test_a_violation_says_where_and_what():
    (finding,) = check_row(with_call('{"place": "Roma", "people": "2"}')).violations
    assert finding.path == "messages[2].tool_calls[0].function.arguments"
    assert "people" in finding.message and "integer" in finding.message


def test_an_unknown_tool_is_told_and_a_misspelt_one_explained():
    (finding,) = check_row(with_call("{}", name="Book")).violations
    assert finding.rule == "tool_schema" and "'book' is" in finding.message
    assert rules(openai(tools=[])) == {"tool_schema"}


def test_references_inside_the_schema_are_followed():
    parameters = {
        "$defs": {"city": {"type": "string", "minLength": 2}},
        "properties": {"place": {"$ref": "#/$defs/city"}, "to": {"oneOf": [{"type": "null"}, {"type": "integer"}]}},
    }
    tools = [{"type": "function", "function": {"name": "book", "parameters": parameters}}]
    assert rules({**with_call('{"place": "Roma", "to": null}'), "tools": tools}) == set()
    assert rules({**with_call('{"place": "R"}'), "tools": tools}) == {"tool_schema_strict"}
    assert rules({**with_call('{"to": "x"}'), "tools": tools}) == {"tool_schema"}


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"type": "dict", "properties": {"place": {"type": "str"}}}, "tool_schema"),
        ({"type": "object", "properties": []}, "tool_schema"),
        ({"type": "object", "required": "all"}, "tool_schema"),
        ({"properties": {"place": {"pattern": "("}}}, "tool_schema"),
        (["place"], "tool_schema"),
        ({"$ref": "#/definitions/missing"}, "tool_schema_strict"),
    ],
)
def test_a_broken_schema_is_reported_even_where_nobody_calls_the_tool(parameters, rule):
    broken = {"type": "function", "function": {"name": "other", "parameters": parameters}}
    assert rules(openai(tools=[TOOL, broken])) == {rule}


def test_a_remote_reference_is_never_fetched_only_flagged():
    parameters = {"properties": {"place": {"$ref": "https://example.invalid/city.json"}}}
    tools = [{"type": "function", "function": {"name": "book", "parameters": parameters}}]
    assert flags(openai(tools=tools)) == {"remote_ref"}


def test_a_regular_expression_without_end_ends():
    parameters = {"properties": {"place": {"type": "string", "pattern": "^(a+)+$"}}}
    tools = [{"type": "function", "function": {"name": "book", "parameters": parameters}}]
    row = {**with_call(json.dumps({"place": "a" * 60 + "!"})), "tools": tools}
    assert rules(row) == {"tool_schema_strict"}


def test_a_tool_without_parameters_takes_anything():
    tools = [{"type": "function", "function": {"name": "book"}}]
    assert rules({**with_call('{"x": 1}'), "tools": tools}) == set()


@pytest.mark.parametrize("tool", ["book", {"name": "flat", "parameters": {}}, {"type": "function", "function": {}}])
def test_a_tool_in_another_shape_is_told(tool):
    assert "tool_schema" in rules(openai(tools=[TOOL, tool]))


def test_a_lone_surrogate_in_arguments_does_not_stop_the_check():
    assert "tool_schema" in rules(with_call('{"place": "\\ud83d"}'))


# rule 2

USER, REPLY = ("user", {"content": "hi"}), ("assistant", {"content": think("hello")})
CALL = ("assistant", {"content": think(""), "tool_calls": [call()]})
ANSWER = ("tool", {"content": "{}", "tool_call_id": "c1"})
SYSTEM = ("system", {"content": "s"})


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [USER, USER, REPLY],
        [SYSTEM, REPLY, USER, REPLY],
        [USER, SYSTEM, REPLY],
        [USER, REPLY, USER],
        [USER, CALL, ANSWER],
        [USER, CALL],
        [USER, REPLY, REPLY],
        [("human", {"content": "hi"}), REPLY],
        [SYSTEM, REPLY],
        [USER, ANSWER, REPLY],
        [USER, CALL, ANSWER, REPLY, ANSWER, USER, REPLY],
        [USER, CALL, ANSWER, USER, REPLY],
    ],
)
def test_roles_out_of_order_are_told(messages):
    assert "role_order" in rules(with_messages(*messages))


@pytest.mark.parametrize(
    "messages",
    [
        [USER, REPLY],
        [SYSTEM, USER, REPLY, USER, REPLY],
        [USER, CALL, ANSWER, CALL, ANSWER, REPLY, USER, CALL, ANSWER, REPLY],
    ],
)
def test_turns_in_order_pass(messages):
    assert rules(with_messages(*messages)) == set()


def test_a_greeting_is_fine_by_default():
    row = with_messages(SYSTEM, REPLY, USER, REPLY)
    assert rules(row, make_profile()) == set() and rules(row) == {"role_order"}


# rule 3


def test_calls_and_responses_are_counted():
    lost = with_messages(USER, CALL, REPLY)
    extra = with_messages(USER, CALL, ANSWER, ANSWER, REPLY)
    assert rules(lost) == rules(extra) == {"tool_call_response_match"}


def two_calls(*ids) -> dict:
    calls = ("assistant", {"content": think(""), "tool_calls": [call(id="c1"), call(id="c2")]})
    return with_messages(USER, calls, *[("tool", {"content": "{}", "tool_call_id": id}) for id in ids], REPLY)


def test_responses_may_come_in_any_order_but_not_twice_to_one_call():
    assert flags(two_calls("c1", "c2")) == flags(two_calls("c2", "c1")) == set()
    assert rules(two_calls("c1", "c1")) == {"tool_call_response_match"}


def test_without_ids_the_position_tells():
    assert flags(two_calls(None, None)) == set()
    assert flags(two_calls("c2", None)) == set()
    assert flags(two_calls("c1", "other")) == {"call_id_mismatch"}


def test_an_id_that_is_used_twice_is_flagged():
    assert flags(with_messages(USER, CALL, ANSWER, CALL, ANSWER, REPLY)) == {"call_id_reused"}


def test_ids_may_be_numbers():
    calls = ("assistant", {"content": think(""), "tool_calls": [call(id=7)]})
    assert flags(with_messages(USER, calls, ("tool", {"content": "{}", "tool_call_id": 7}), REPLY)) == set()


def test_the_old_function_call_counts_as_a_call():
    old = ("assistant", {"content": think(""), "function_call": {"name": "book", "arguments": "{}"}})
    row = with_messages(USER, old, ("function", {"name": "book", "content": "{}"}), REPLY)
    (finding,) = check_row(row).violations
    assert finding.rule == "tool_schema" and finding.path == "messages[1].function_call.arguments"


# rule 4


@pytest.mark.parametrize("mark", ["<tool_response>\n{}\n</tool_response>", "</tool_response>", "<function_results>"])
def test_a_tool_response_inside_an_assistant_message_is_told(mark):
    assert rules(with_content(4, think(f"Done. {mark}"))) == {"no_tool_response_in_assistant_message"}
    assert rules(with_content(4, f"Done. {mark}"), make_profile()) == {"no_tool_response_in_assistant_message"}


def test_a_call_written_as_text_is_flagged_and_a_user_may_quote_anything():
    assert flags(with_content(4, think("<tool_call>{}</tool_call>"))) == {"call_text_in_reply"}
    assert flags(with_content(1, "what is <tool_response>?")) == set()


# rule 5


def test_arguments_that_are_not_json_are_counted_as_such_too():
    assert rules(with_call("{")) == {"tool_schema", "arguments_json_valid"}
    assert rules(with_call("{"), make_profile(without=["schema"])) == {"arguments_json_valid"}


@pytest.mark.parametrize("content", ["Booked.", "{'a': 1}", "", None, '{"a": NaN}'])
def test_a_response_that_is_not_json_is_told_where_text_is_not_allowed(content):
    row = with_content(3, content)
    assert "tool_response_json_valid" in rules(row)
    assert rules(row, make_profile()) == set()


@pytest.mark.parametrize(
    "content", ['{"a": 1}', "[]", "12", "null", '"text"', {"a": 1}, [{"a": 1}], '{"a": "\\ud83d"}']
)
def test_any_json_is_a_response(content):
    assert rules(with_content(3, content)) == set()


def test_what_only_looks_like_json_is_flagged_where_text_is_allowed():
    assert flags(with_content(3, "{'a': 1}"), make_profile()) == {"broken_json"}
    assert flags(with_content(3, ""), make_profile()) == {"empty_response"}


# rule 6


def test_tools_offered_twice_are_told_by_name_and_by_schema():
    other = copy.deepcopy(TOOL)
    other["function"]["parameters"] = {"type": "object"}
    assert rules(openai(tools=[TOOL, other])) == {"duplicate_tools_by_name"}
    assert rules(openai(tools=[TOOL, TOOL])) == {"duplicate_tools_by_name", "duplicate_tools_by_schema"}
    renamed = copy.deepcopy(TOOL)
    renamed["function"]["name"] = "reserve"
    assert rules(openai(tools=[TOOL, renamed])) == {"duplicate_tools_by_schema"}


def test_the_same_parameters_alone_make_no_duplicate():
    renamed = copy.deepcopy(TOOL)
    renamed["function"].update(name="cancel", description="Cancel a table")
    assert rules(openai(tools=[TOOL, renamed])) == set()


# rule 7


@pytest.mark.parametrize(
    "text",
    [
        "<think>never closed",
        "never opened</think> yes",
        "</think>the wrong way<think> yes",
        "<think>a</think><think>b</think> yes",
        "<think>a<think>b</think></think> yes",
    ],
)
def test_think_tags_out_of_order_are_told_even_where_thinking_is_optional(text):
    assert rules(with_content(4, text)) == rules(with_content(4, text), make_profile()) == {"think_tags"}


def test_missing_thinking_is_told_only_where_it_is_required():
    assert rules(with_content(4, "Done.")) == {"think_tags"}
    assert rules(with_content(4, "Done."), make_profile()) == set()
    assert rules(with_content(4, "First: <think>a</think>")) == {"think_tags"}


def test_thinking_is_the_assistants_own():
    for index, content in ((1, "<think>let me</think> go"), (3, '{"note": "<think>x</think>"}')):
        assert (
            rules(with_content(index, content)) == rules(with_content(index, content), make_profile()) == {"think_tags"}
        )
    assert rules(with_content(0, "Think between <think> and </think>.")) == set()


def test_two_sections_in_one_message_are_not_excused_by_none_in_another():
    row = openai()
    row["messages"][2]["content"] = None
    row["messages"][4]["content"] = "<think>a</think><think>b</think> yes"
    assert rules(row, make_profile()) == {"think_tags"}


def test_empty_thinking_and_a_reply_of_thinking_only_are_flagged():
    assert flags(with_content(4, "<think>\n\n</think>\n\nyes")) == {"empty_thinking"}
    assert flags(with_content(4, think(""))) == {"thinking_without_reply"}


# rule 8


@pytest.mark.parametrize("content", ["", " \n\t", None])
@pytest.mark.parametrize("index", [1, 4])
def test_an_empty_user_message_or_reply_is_told(index, content):
    assert "non_empty_content" in rules(with_content(index, content), make_profile())


def test_content_may_be_missing_altogether():
    row = openai()
    del row["messages"][4]["content"]
    assert "non_empty_content" in rules(row)
    row = openai()
    del row["messages"][2]["content"]
    assert rules(row, make_profile()) == set()


def test_content_in_parts_is_read_and_an_image_flagged():
    text = [{"type": "text", "text": "A table"}, {"type": "text", "text": "please"}]
    assert flags(with_content(1, text)) == set()
    assert flags(with_content(1, [*text, {"type": "image_url", "image_url": {"url": "x"}}])) == {"non_text_content"}


# structure and limits


@pytest.mark.parametrize(
    "row",
    [
        {},
        openai(messages=None),
        openai(messages={"0": {}}),
        openai(messages="hi"),
        openai(messages=["user: hi"]),
        openai(messages=[{"content": "hi"}]),
        openai(messages=[{"role": 7, "content": "hi"}]),
        with_content(1, 42),
        with_content(1, [3]),
        openai(tools=None),
        openai(tools={"book": 1}),
        openai(tools="[broken"),
        {key: value for key, value in openai().items() if key != "tools"},
        {**nemotron(), "metadata": "{broken"},
        {**nemotron(), "metadata": "[]"},
        {**nemotron(), "metadata": None},
    ],
)
def test_what_is_no_dialogue_is_a_structure_failure(row):
    assert rules(row) == {"structure"}


@pytest.mark.parametrize(
    "calls", [{"id": "c1"}, ["book"], [{"type": "function"}], [{"function": {"name": "book"}}], [{"function": {}}], 3]
)
def test_calls_in_another_shape_are_a_structure_failure(calls):
    row = openai()
    row["messages"][2]["tool_calls"] = calls
    assert rules(row) == {"structure"}
    row = openai()
    row["messages"][1]["tool_calls"] = [call()]
    assert rules(row) == {"structure"}


def test_tools_may_be_json_text_or_absent_where_none_is_called():
    assert rules(openai(tools=json.dumps([TOOL]))) == set()
    assert rules({**nemotron(), "metadata": {"tools": json.dumps([TOOL])}}) == set()
    assert (
        rules({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, make_profile())
        == set()
    )


def test_absurd_sizes_are_refused_and_odd_ones_flagged():
    assert rules(with_content(1, "a" * 1_000_001)) == {"limit"}
    assert "limit" in rules(openai(messages=[{"role": "user", "content": "a"}] * 2_001))
    deep = [f'{{"s": "[[[[{{{{", "a": {"[" * n}{"]" * n}}}' for n in (90, 200, 600)]
    assert flags(with_content(3, deep[0])) == set()
    assert flags(with_content(3, deep[1])) == {"deep_nesting"}
    assert rules(with_content(3, deep[2])) == {"limit"}
    assert "limit" in rules(with_content(3, "[" * 20_000 + "]" * 20_000))


def test_arguments_nested_absurdly_deep_are_refused():
    def nested(depth: int) -> str:
        return f'{{"place": "Roma", "when": {{"day": "[[[[{{{{", "a": {"[" * depth}{"]" * depth}}}}}'

    assert rules(with_call(nested(500))) == set()
    assert rules(with_call(json.loads(nested(500)))) == set()
    found = check_row(with_call(nested(511)), PUBLISHED).violations
    assert [(f.rule, f.path) for f in found] == [("limit", "messages[2].tool_calls[0].function.arguments")]
    assert "513 deep; at most 512" in found[0].message
    assert rules(with_call(json.loads(nested(511)))) == {"limit"}


def test_a_value_nested_beyond_reading_is_no_crash():
    deep: list = []
    for _ in range(3_000):
        deep = [deep]
    for row in (with_call({"place": deep}), openai(tools=[deep]), with_content(3, deep), with_content(3, {"a": deep})):
        assert not check_row(row).kept


def test_a_row_tells_at_most_some_findings_of_a_rule():
    row = openai(messages=[{"role": "user", "content": ""}] * 500)
    counts = [finding.rule for finding in check_row(row).violations]
    assert counts.count("non_empty_content") == MOST and "role_order" in counts


# switches


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_can_be_the_only_one_or_left_out(rule):
    bad = openai(tools=[TOOL, TOOL])
    bad["messages"] = [
        {"role": "assistant", "content": "<tool_response>"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": [call(arguments="{"), call(arguments='{"place": "X"}')]},
        {"role": "tool", "content": "{"},
    ]
    assert rules(bad) == set(RULES)
    assert rules(bad, make_profile("published", rules=[rule])) == {rule}
    assert rules(bad, make_profile("published", without=[rule])) == set(RULES) - {rule}


def test_short_names_switch_their_finer_rules():
    profile = make_profile(rules=["schema", "duplicates", "role_order"], without=["duplicate_tools_by_name"])
    assert profile.rules == {"tool_schema", "tool_schema_strict", "duplicate_tools_by_schema", "role_order"}
    assert rules({}, make_profile(rules=[])) == {"structure"}


def test_an_unknown_rule_or_profile_is_one_clear_sentence():
    with pytest.raises(ConfigError, match="no rule 'schemas'"):
        make_profile(rules=["schemas"])
    with pytest.raises(ConfigError, match="no profile 'strict'"):
        make_profile("strict")
