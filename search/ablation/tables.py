"""An ablation's tables, with the same cells for terminal, Markdown, LaTeX and HTML, and all numbers as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rich import box
from rich.table import Table as RichTable

from search.ablation.metrics import CASE_METRICS
from search.ablation.summary import Effect, Line, Summary, percent
from search.config.objectives import OBJECTIVES, show
from search.visualization.components import Cell

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "†": r"$^\dagger$",
    "−": r"$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "<": r"$<$",
    ">": r"$>$",
}


NOTHING = (None, "")  # an empty cell in a column of numbers


@dataclass(frozen=True)
class Table:
    """Headings, rows of cells with the arm's name in the first column, and notes below the table."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The rows as text."""
        return [tuple(cell if isinstance(cell, str) else cell[1] for cell in row) for row in self.rows]


def tables(summary: Summary, *, same: Sequence[tuple[str, str]]) -> tuple[Table, ...]:
    """Return a table for each metric that is scored case by case, then one for the costs.

    `same` holds (arm, the earlier arm that it equals).
    """
    scores = [_scores(summary, metric, same) for metric in summary.design.case_metrics]
    notes = tuple(f"missing: {each.arm}, seed {each.seed}, fold {each.fold}: {each.why}" for each in summary.missing)
    costs = _costs(summary)
    return (Table(scores[0].title, scores[0].headings, scores[0].rows, (*scores[0].notes, *notes)), *scores[1:], costs)


def _scores(summary: Summary, metric: str, same: Sequence[tuple[str, str]]) -> Table:
    design = summary.design
    modelled = any(metric in line.effects and line.effects[metric].mixed for line in summary.lines)
    headings = (
        "arm",
        "trainings",
        f"{CASE_METRICS[metric].title} {CASE_METRICS[metric].arrow}",
        "Δ",
        "95 % CI",
        f"p ({_words(design.correction)})",
        "effect",
        "p (mixed)",
        "detectable Δ",
        "verdict",
    )
    rows = [_score_row(summary, line, metric) for line in summary.lines if metric in line.means]
    rows += [(arm, NOTHING, (None, f"= {other}"), *[NOTHING] * 6, "") for arm, other in same]
    units = {line.effects[metric].pairs.units for line in summary.lines if metric in line.effects}
    over = " to ".join(str(each) for each in sorted({min(units), max(units)})) if units else "no"
    notes = [
        f"mean ± sd over trainings; Δ: mean paired difference to {design.baseline} over {over} units; effect: "
        "rank-biserial correlation; detectable Δ: smallest difference detected with a power of 0.8",
    ]
    if any("†" in str(row[-1]) for row in rows):
        why = (
            "the mixed model does not confirm it"
            if modelled
            else "each arm was trained once, so another seed may differ"
        )
        notes.append(f"† significant over the cases only; {why}")
    return Table(f"{CASE_METRICS[metric].title} against {design.baseline}", headings, tuple(rows), tuple(notes))


def _words(correction: str) -> str:
    return {"holm": "Holm", "bonferroni": "Bonferroni", "fdr_bh": "BH", "none": "uncorrected"}[correction]


def _score_row(summary: Summary, line: Line, metric: str) -> tuple[Cell, ...]:
    digits, (mean, sd) = CASE_METRICS[metric].digits, line.means[metric]
    asked = line.trainings + sum(each.arm == line.arm for each in summary.missing)
    trainings = (line.trainings, str(asked) if asked == line.trainings else f"{line.trainings} of {asked}")
    shown = (mean, f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}"))
    effect = line.effects.get(metric)
    if effect is None:
        return (line.arm, trainings, shown, *[NOTHING] * 6, "baseline" if line.arm == summary.design.baseline else "")
    return (line.arm, trainings, shown, *_effect_cells(effect, digits), summary.verdict(effect, metric))


def _effect_cells(effect: Effect, digits: int) -> tuple[Cell, ...]:
    pairs, mixed, detectable = effect.pairs, effect.mixed_adjusted, effect.detectable
    return (
        (pairs.difference, signed(pairs.difference, digits)),
        (pairs.low, f"{signed(pairs.low, digits)} to {signed(pairs.high, digits)}"),
        (effect.adjusted, show_p(effect.adjusted)),
        (pairs.rank_biserial, signed(pairs.rank_biserial, 2)),
        NOTHING if mixed is None else (mixed, show_p(mixed)),
        (None, "none") if detectable is None else (detectable, f"{detectable:.{digits}f}"),
    )


def _costs(summary: Summary) -> Table:
    names, base = summary.design.cost_metrics, summary.base
    headings = ["arm", CASE_METRICS[summary.primary].title]
    for name in names:
        headings += [OBJECTIVES[name].heading, "Δ"]
    rows = []
    for line in summary.lines:
        mean = line.means[summary.primary][0]
        cells: list[Cell] = [line.arm, (mean, f"{mean:.{CASE_METRICS[summary.primary].digits}f}")]
        for name in names:
            cells += _cost_cells(name, line.costs.get(name), base.costs.get(name) if base and line != base else None)
        rows.append((*cells, "on the front" if line.on_front else ""))
    title = f"Costs against {summary.design.baseline}"
    return Table(title, (*headings, "Pareto"), tuple(rows))


def _cost_cells(name: str, value: float | None, base: float | None) -> list[Cell]:
    shown = (value, show(name, value))
    if value is None or base is None:
        return [shown, NOTHING]
    difference = value - base
    sign = "−" if difference < 0 else "+"
    return [shown, (difference, f"{sign}{show(name, abs(difference))} ({signed(percent(value, base), 1)} %)")]


def signed(value: float, digits: int) -> str:
    """Format a difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def show_p(p: float) -> str:
    """Format a p-value."""
    return "<0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.01 else f"{p:.2f}"


def to_rich(table: Table) -> RichTable:
    """Return the table for the terminal."""
    shown = RichTable(
        title=table.title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        caption="\n".join(table.notes),
        caption_justify="left",
    )
    for place, heading in enumerate(table.headings):
        shown.add_column(heading, justify="left" if place in (0, len(table.headings) - 1) else "right")
    for row in table.texts:
        shown.add_row(*row)
    return shown


def to_markdown(table: Table) -> str:
    """Return the table as Markdown."""
    last = len(table.headings) - 1
    rule = ["---" if place in (0, last) else "---:" for place in range(last + 1)]
    lines = [f"**{table.title}**", ""]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (table.headings, tuple(rule), *table.texts)
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)]) + "\n"


def to_latex(table: Table) -> str:
    """Return the table as LaTeX, with booktabs."""
    columns = "l" + "r" * (len(table.headings) - 2) + "l"
    rows = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in (table.headings, *table.texts)]
    notes = [rf"\par\smallskip\footnotesize {_latex(note)}" for note in table.notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def to_html(table: Table) -> str:
    """Return the table as an HTML table."""

    def row(cells: Sequence[str], tag: str) -> str:
        last = len(cells) - 1
        marks = ["" if place in (0, last) else "number" for place in range(last + 1)]
        return (
            "<tr>"
            + "".join(f'<{tag} class="{mark}">{escape(cell)}</{tag}>' for cell, mark in zip(cells, marks, strict=True))
            + "</tr>"
        )

    body = "\n".join(row(cells, "td") for cells in table.texts)
    return f"<table><thead>{row(table.headings, 'th')}</thead><tbody>{body}</tbody></table>"


def to_csv(summary: Summary) -> str:
    """Return all numbers as CSV, unrounded: a row per arm and metric; costs in bytes, seconds and counts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "arm",
            "metric",
            "trainings",
            "mean",
            "sd",
            "units",
            "difference",
            "low",
            "high",
            "percent",
            "p",
            "p_adjusted",
            "rank_biserial",
            "cohens_d",
            "mixed_difference",
            "mixed_error",
            "mixed_p",
            "mixed_p_adjusted",
            "detectable",
            "verdict",
            "on_front",
        ]
    )
    for line in summary.lines:
        for metric, (mean, sd) in line.means.items():
            effect = line.effects.get(metric)
            cells = [""] * 15 if effect is None else _csv_effect(summary, effect, metric)
            writer.writerow([line.arm, metric, line.trainings, mean, _cell(sd), *cells, line.on_front])
        for name, value in line.costs.items():
            base = summary.base.costs.get(name) if summary.base else None
            change = ["", "", "", ""] if base is None else [value - base, "", "", percent(value, base)]
            writer.writerow([line.arm, name, line.trainings, value, "", "", *change, *[""] * 10, line.on_front])
    return text.getvalue()


def _csv_effect(summary: Summary, effect: Effect, metric: str) -> list[object]:
    pairs, mixed = effect.pairs, effect.mixed
    of_mixed = [mixed.difference, mixed.error, mixed.p] if mixed else ["", "", ""]
    return [
        pairs.units,
        pairs.difference,
        pairs.low,
        pairs.high,
        "",
        pairs.p,
        effect.adjusted,
        pairs.rank_biserial,
        _cell(pairs.cohens_d),
        *of_mixed,
        _cell(effect.mixed_adjusted),
        _cell(effect.detectable),
        summary.verdict(effect, metric),
    ]


def _cell(value: float | None) -> object:
    return "" if value is None else value
