"""`cm2 compare DIR DIR` of two folders that `cm2 eval` left: paired by the benchmark's tasks."""

from __future__ import annotations

from cm2.cli.common import emit


def compare_folders(
    given: list[str], names: tuple[str, str], alpha: float, fail_on: str, outputs: list[str], as_json: bool
) -> int:
    """Show and write the comparison; the exit code.

    Raises:
        ConfigError: an output that is neither .md nor .json, or folders that cannot be compared.
    """
    import msgspec
    from rich.table import Table

    from cm2.assure.compare_benchmark import compare_benchmarks, markdown, table
    from cm2.assure.gate_case import write_whole
    from cm2.errors import ConfigError

    if odd := [path for path in outputs if not path.endswith((".md", ".json"))]:
        raise ConfigError(f"benchmarks are not compared in {odd[0]}", fix="name a file that ends in .md or .json")
    found = compare_benchmarks(given[0], given[1], *names, alpha)
    for path in outputs:
        write_whole(path, msgspec.json.encode(found) if path.endswith(".json") else markdown(found).encode())
    head, *rows = table(found)
    shown = Table(*head, title=f"{found.benchmark} ({found.harness})")
    for row in rows:
        shown.add_row(*row)
    emit(msgspec.to_builtins(found), as_json, [shown, *found.notes])
    return 1 if fail_on == "worse" and found.changed("worse") else 0
