"""The table of `make bench-nnunet`; the trainings themselves need nnunetv2."""

from bench_nnunet import report


def row(side, seed, cases):
    values = {"side": side, "seed": seed, "minutes": 5.0, "steps": 50, "seconds": 300.0, "steps_per_s": 0.167}
    return {**values, "cases": cases}


def test_the_difference_is_paired_by_case_and_averaged_over_the_seeds_that_both_have():
    rows = [
        row("voxnas", 0, {"a": 0.8, "b": 0.6}),
        row("voxnas", 1, {"a": 0.9, "b": 0.7}),
        row("voxnas", 2, {"a": 0.0, "b": 0.0}),
        row("nnunetv2", 0, {"a": 0.7, "b": 0.5}),
        row("nnunetv2", 1, {"a": 0.6, "b": 0.6}),
    ]
    *lines, last = report(rows).splitlines()
    assert len(lines) == 5 and "nnunetv2  5 min, seed 0: Dice 0.6000, 50 steps in 300 s, 0.17 steps/s" in lines[0]
    assert last.startswith("5 min, 2 seed(s): voxnas minus nnunetv2 +0.1500 (95 % +0.1000 to +0.2000, 2 cases)")


def test_one_side_alone_gives_no_difference():
    assert len(report([row("voxnas", 0, {"a": 0.5})]).splitlines()) == 1
