"""Proposals are computed with one thread, whatever the process uses before and after."""

from operator import attrgetter

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from search.proposers.propose import ask_new, make_proposer
from search.proposers.threads import single_threaded
from search.simulate.clock import problem_of_table
from search.simulate.synthetic import synthetic_table


def blas_threads():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_a_function_computes_with_one_thread_and_the_process_keeps_its_own():
    with threadpool_limits(limits=2):
        before = blas_threads()
        assert set(single_threaded(blas_threads)()) == {1}
        assert blas_threads() == before


@pytest.mark.parametrize(
    ("name", "step"), [("known-cost", "candidates.design"), ("gp", "_flat"), ("tpe", "_conditional")]
)
def test_proposals_are_computed_with_one_thread(name, step, monkeypatch):
    proposer, seen = make_proposer(name, problem := problem_of_table(synthetic_table("noisy"), seed=0)), []
    compute = attrgetter(step)(proposer)
    owner, _, last = step.rpartition(".")
    patched = attrgetter(owner)(proposer) if owner else proposer
    monkeypatch.setattr(patched, last, lambda *given, **named: seen.append(blas_threads()) or compute(*given, **named))
    with threadpool_limits(limits=2):
        assert ask_new(proposer, problem, [])[0] is not None
    assert seen and set(seen[0]) == {1}
