"""The documentation does what it says: commands run, flags exist, settings are explained, links lead somewhere."""

import re
import shlex

import pytest

from cm2.cli.main import VERBS, main
from cm2.evals.evaluate import EvaluateConfig
from cm2.train.rl import RlConfig
from cm2.train.roll import summary_of
from cm2.train.sft import SftConfig
from docs.pages import LEFT_OUT, PAGES, ROOT, all_options, blocks, commands, plain, spans, tree, wrong

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
RUNNABLE = [name for name in NAMES if any(b.exit is not None for b in blocks((ROOT / name).read_text()))]


def read(name):
    return (ROOT / name).read_text()


@pytest.mark.parametrize("name", RUNNABLE)
def test_marked_blocks_run_and_print_what_the_page_shows(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for block in blocks(read(name)):
        if block.exit is None:
            continue
        if block.kind == "python":
            exec(compile(block.text, name, "exec"), {"__name__": "docs"})
            continue
        for number, command in enumerate(block.commands, 1):
            assert command.text.startswith("cm2 "), f"{name}: only cm2 commands can be run: {command.text}"
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(command.text, comments=True)[1:])
            printed = capsys.readouterr()
            last = number == len(block.commands)
            assert ended.value.code == (block.exit if last else 0), f"{command.text}: {printed.err or printed.out}"
            lines = {plain(line) for line in (printed.out + printed.err).splitlines()}
            for line in command.shown:
                found = line.strip() == LEFT_OUT or plain(line) in lines
                assert found, f"{name}: `{command.text}` does not print: {line}\n{printed.out}"


def test_every_verb_and_flag_in_the_documentation_exists():
    root = tree()
    assert [problem for name in NAMES for line in commands(read(name)) for problem in wrong(line, root)] == []
    known = all_options(root)
    lone = [span for name in NAMES for span in spans(read(name)) if re.match(r"--[a-z]", span)]
    assert lone and [span for span in lone if re.split(r"[ =]", span)[0] not in known] == []


@pytest.mark.parametrize(
    "line",
    [
        "cm2 rl IN -o RUN --made-up 3",
        "cm2 filter IN -o KEPT [--rejected FILE] [--made-up=a,b]",
        "cm2 worlds make -o FILE --made-up",
        "cm2 worlds break -o FILE",
        "cm2 bless IN",
    ],
)
def test_a_made_up_verb_or_flag_is_noticed(line):
    assert len(wrong(line, tree())) == 1


def test_every_verb_has_its_section_in_the_reference():
    page = read("docs/reference.md")
    assert [verb for verb in VERBS if not re.search(rf"^### `cm2 {verb}\b", page, re.M)] == []


@pytest.mark.parametrize(
    ("name", "config"),
    [("docs/reinforce.md", RlConfig), ("docs/fine-tune.md", SftConfig), ("docs/reinforce.md", EvaluateConfig)],
)
def test_every_setting_is_explained(name, config):
    explained = {word for span in spans(read(name)) for word in re.findall(r"[a-z_]+", span.replace("-", "_"))}
    assert sorted(set(config.__struct_fields__) - explained) == []


def test_every_number_of_a_training_step_is_explained():
    explained = set(spans(read("docs/reinforce.md")))
    assert sorted(set(summary_of([], [], 2)) - explained) == []


def test_links_lead_to_files_and_headings():
    broken = []
    for name in NAMES:
        for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#\s]*(?:#[^)\s]*)?)\)", read(name)):
            path, _, heading = target.partition("#")
            if path.startswith(("http://", "https://")):
                continue
            file = (ROOT / name).parent / path if path else ROOT / name
            if not file.exists() or (heading and heading not in headings(file.read_text())):
                broken.append(f"{name}: {target}")
    assert broken == []


def headings(page):
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
