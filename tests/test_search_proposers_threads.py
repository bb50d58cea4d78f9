"""Proposals are computed with one thread, whatever the process uses before and after."""

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


def test_an_ask_uses_one_thread(monkeypatch):
    seen = []
    proposer = make_proposer("random", problem := problem_of_table(synthetic_table("noisy"), seed=0))
    proposals = proposer.proposals
    monkeypatch.setattr(proposer, "proposals", lambda records: seen.extend(blas_threads()) or proposals(records))
    with threadpool_limits(limits=2):
        assert ask_new(proposer, problem, [])[0] is not None
    assert set(seen) == {1}
