"""The order of work: who does what next, what is tried again and what is given up, without anybody who does it."""

import pytest

from oodbench.execution.queue import BATCH, BATCH_S, RETRIES, Task, WorkQueue
from oodbench.execution.work import WorkRequest


def requests(seed, n):
    return [WorkRequest(what="run", seed=seed, job=job, cells=[f"{seed}-{job}"]) for job in range(n)]


def ready(jobs, seeds=(0,)):
    """A queue of some seeds that are prepared and have their evidence; its workers have not begun."""
    queue = WorkQueue(seeds)
    for seed in seeds:
        queue.next(f"at {seed}")
        queue.prepared(seed, requests(seed, jobs))
    for seed in seeds:
        queue.next(f"at {seed}")
        queue.collected(seed)
    queue.forget_workers_but(())
    return queue


def name(task):
    request = task.request
    return (request.seed, request.job) if request.what == "run" else (request.seed, request.what)


def batch(queue, worker):
    """What a worker is given together."""
    tasks = []
    while (task := queue.next(worker, tasks)) is not None:
        tasks.append(task)
    return tasks


def rest(queue, worker="rest"):
    """All that is still given, one by one."""
    return [name(task) for task in iter(lambda: queue.next(worker), None)]


def after(queue, worker, tasks, seconds):
    """How many tasks a worker is given after some that took so long."""
    queue.took(worker, tasks, seconds)
    return len(batch(queue, worker))


# Order


def test_a_seed_is_prepared_then_its_evidence_is_collected_then_its_jobs_are_run():
    queue = WorkQueue([3])
    assert name(queue.next("a")) == (3, "prepare")
    assert queue.next("a") is None
    assert queue.next("b") is None
    queue.prepared(3, requests(3, 3))
    assert not queue.is_empty
    assert name(queue.next("a")) == (3, "collect")
    assert queue.next("a") is None, "its jobs need the evidence"
    assert queue.next("b") is None
    queue.collected(3)
    assert rest(queue, "a") == [(3, 0), (3, 1), (3, 2)]
    assert queue.is_empty


def test_no_evidence_is_collected_where_no_job_is_to_be_run():
    queue = WorkQueue([0])
    queue.next("a")
    queue.prepared(0, [])
    assert queue.is_empty
    assert queue.next("a") is None


def test_a_worker_stays_with_its_seed_while_that_has_tasks():
    queue = ready(3, seeds=(0, 1))
    assert name(queue.next("a")) == (0, 0)
    assert name(queue.next("b")) == (1, 0)
    assert name(queue.next("b")) == (1, 1)
    assert name(queue.next("c")) == (0, 1)
    assert name(queue.next("a")) == (0, 2), "though two are at it, and one at the other"
    assert name(queue.next("a")) == (1, 2)
    assert queue.next("a") is None


def test_a_new_worker_goes_to_the_seed_that_fewest_are_at():
    queue = ready(9, seeds=(0, 1, 2))
    assert [queue.next(worker).request.seed for worker in "abcdefg"] == [0, 1, 2, 0, 1, 2, 0]


def test_a_worker_whose_seed_has_nothing_more_goes_to_the_one_that_fewest_are_at():
    queue = ready(2, seeds=(0, 1, 2))
    assert [queue.next(worker).request.seed for worker in "abbc"] == [0, 1, 1, 2]
    assert queue.next("d").request.seed == 0
    assert queue.next("b").request.seed == 2


def test_workers_that_are_gone_are_at_no_seed():
    queue = ready(9, seeds=(0, 1))
    assert [queue.next(worker).request.seed for worker in "abc"] == [0, 1, 0]
    queue.forget_workers_but({"b"})
    assert [queue.next(worker).request.seed for worker in "deb"] == [0, 0, 1]


def test_a_seed_that_becomes_ready_is_taken_by_whoever_has_nothing_else():
    queue = WorkQueue([0, 1])
    assert [name(queue.next(worker)) for worker in "ab"] == [(0, "prepare"), (1, "prepare")]
    queue.prepared(1, requests(1, 1))
    assert name(queue.next("a")) == (1, "collect")


def test_tasks_that_are_put_back_come_first_and_in_their_order():
    queue = ready(5)
    queue.put_back([queue.next("a") for _ in range(3)])
    assert rest(queue) == [(0, job) for job in range(5)]


# Several at a time


def test_one_task_is_given_at_first():
    assert [name(task) for task in batch(ready(5), "a")] == [(0, 0)]


def test_short_jobs_are_given_together_at_most_twice_as_many_as_before_and_at_most_32():
    queue = ready(500)
    batch(queue, "a")
    given = [1]
    for _ in range(7):
        given.append(after(queue, "a", given[-1], 1e-5 * given[-1]))
    assert given == [1, 2, 4, 8, 16, BATCH, BATCH, BATCH]
    assert BATCH == 32


def test_jobs_that_take_no_time_at_all_are_short():
    assert after(ready(50), "a", 4, 0.0) == 8


def test_what_is_given_together_takes_a_tenth_of_a_second():
    assert BATCH_S == 0.1
    queue = ready(500)
    assert after(queue, "a", 32, 32 * 0.015) == 6
    assert after(queue, "a", 6, 6 * 0.04) == 2
    assert after(queue, "a", 2, 60.0) == 1
    assert after(queue, "a", 1, 0.06) == 1, "two would take longer"


def test_how_long_jobs_take_is_known_of_each_worker():
    queue = ready(50)
    assert after(queue, "fast", 8, 0.008) == 16
    assert len(batch(queue, "slow")) == 1


def test_jobs_of_one_seed_alone_are_given_together_and_in_their_order():
    queue = ready(3, seeds=(0, 1))
    queue.took("a", BATCH, 0.0)
    assert [name(task) for task in batch(queue, "a")] == [(0, 0), (0, 1), (0, 2)]
    assert [name(task) for task in batch(queue, "a")] == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("what", ["prepare", "collect"])
def test_what_is_no_job_is_given_alone(what):
    queue = ready(5)
    queue.took("a", BATCH, 0.0)
    batch(queue, "a")
    queue.put_back([Task(request) for request in [WorkRequest(what=what, seed=0), *requests(0, 5)]])
    assert [name(task) for task in batch(queue, "a")] == [(0, what)]
    queue.put_back([Task(WorkRequest(what=what, seed=0))])
    beside = [Task(request) for request in requests(0, 1)]
    assert queue.next("a", beside) is None, "nor after a job"


@pytest.mark.parametrize("position", [0, 2])
def test_what_was_tried_before_is_given_alone(position):
    queue = ready(5)
    queue.took("a", BATCH, 0.0)
    tasks = batch(queue, "a")
    queue.put_back(tasks[position + 1 :])
    queue.lost([tasks[position]], "it ended")
    queue.put_back(tasks[:position])
    given = [[name(task) for task in batch(queue, "a")] for _ in range(3)]
    before, this, behind = [(0, job) for job in range(position)], [(0, position)], range(position + 1, 5)
    expected = [one for one in (before, this, [(0, job) for job in behind]) if one]
    assert given[: len(expected)] == expected


def test_what_has_failed_is_given_alone():
    queue = ready(5)
    queue.took("a", BATCH, 0.0)
    first, *others = batch(queue, "a")
    queue.put_back(others)
    queue.lost([first], "it ended", RETRIES + 1)
    failed = batch(queue, "a")
    assert [(name(task), task.tries, task.request.failure is None) for task in failed] == [((0, 0), 0, False)]
    assert [name(task) for task in batch(queue, "a")] == [(0, job) for job in range(1, 5)]


# What is lost


def lose(queue, why="it ended", tries=1):
    """The next task is given, and lost; what becomes of it."""
    (verdict,) = queue.lost([queue.next("a")], why, tries)
    return verdict


def test_a_lost_job_is_tried_three_times_more_and_before_all_others():
    queue = ready(2)
    for tried in range(1, RETRIES + 1):
        verdict = lose(queue)
        assert (verdict.fate, verdict.why, name(verdict.task), verdict.task.tries) == (
            "again",
            "it ended",
            (0, 0),
            tried,
        )
    assert RETRIES == 3
    assert rest(queue) == [(0, 0), (0, 1)]


def test_a_job_that_is_lost_a_fourth_time_is_recorded_as_failed_and_one_whose_failure_is_lost_as_often_is_given_up():
    queue = ready(2)
    assert [lose(queue).fate for _ in range(4)] == ["again", "again", "again", "failed"]
    task = queue.next("b")
    assert task.request == requests(0, 1)[0].model_copy(update={"failure": "it ended; it was tried 4 times"})
    queue.put_back([task])
    verdicts = [lose(queue, "it ended again") for _ in range(4)]
    assert [verdict.fate for verdict in verdicts] == ["again", "again", "again", "given up"]
    assert verdicts[-1].why == "it ended again, and so it was with its failure"
    assert verdicts[-1].task.request.failure == "it ended; it was tried 4 times"
    assert rest(queue) == [(0, 1)]


@pytest.mark.parametrize("what", ["prepare", "collect"])
def test_what_is_no_job_is_given_up_when_it_is_lost_a_fourth_time(what):
    queue = WorkQueue([0])
    if what == "collect":
        queue.next("a")
        queue.prepared(0, requests(0, 2))
    verdicts = [lose(queue) for _ in range(4)]
    assert [verdict.fate for verdict in verdicts] == ["again", "again", "again", "given up"]
    assert {name(verdict.task) for verdict in verdicts} == {(0, what)}
    assert verdicts[-1].why == f"{what} failed 4 times: it ended"
    assert queue.next("a") is None


def test_that_every_worker_ended_at_a_task_counts_as_all_its_tries():
    queue = ready(2)
    verdict = lose(queue, tries=RETRIES + 1)
    assert (verdict.fate, verdict.task.request.failure) == ("failed", "it ended; it was tried 4 times")
    verdict = lose(queue, tries=RETRIES + 1)
    assert (verdict.fate, name(verdict.task)) == ("given up", (0, 0))
    assert rest(queue) == [(0, 1)]
    assert lose(WorkQueue([0]), tries=RETRIES + 1).fate == "given up"


@pytest.mark.parametrize("tries", [1, RETRIES + 1])
def test_of_a_lost_batch_each_job_counts_one_try_and_is_tried_alone(tries):
    """Nobody knows which of them it was, even if every worker ended at it."""
    queue = ready(6)
    queue.took("a", 2, 0.0)
    tasks = batch(queue, "a")
    assert len(tasks) == 4
    verdicts = queue.lost(tasks, "it ended", tries)
    assert {(name(verdict.task), verdict.fate) for verdict in verdicts} == {((0, job), "again") for job in range(4)}
    alone = [batch(queue, "a") for _ in range(4)]
    assert [[(name(task), task.tries) for task in given] for given in alone] == [[((0, job), 1)] for job in range(4)]
    assert [name(task) for task in batch(queue, "a")] == [(0, 4), (0, 5)]


def test_one_of_a_lost_batch_has_as_many_tries_left_as_one_that_was_lost_alone():
    queue = ready(2)
    queue.took("a", 2, 0.0)
    queue.lost(batch(queue, "a"), "it ended")
    assert [lose(queue).fate for _ in range(3)] == ["again", "again", "failed"]


# What others are at


def test_a_postponed_task_comes_back_after_the_next_look_alone_and_last():
    queue = ready(3)
    queue.postpone(queue.next("a"))
    assert name(queue.next("a")) == (0, 1)
    queue.look_again()
    assert rest(queue, "a") == [(0, 2), (0, 0)]
    queue.look_again()
    assert queue.next("a") is None, "once"
    assert queue.is_empty


def test_a_postponed_task_is_not_given_until_then_and_is_still_to_do():
    queue = ready(1)
    queue.postpone(queue.next("a"))
    assert queue.next("a") is None
    assert queue.next("b") is None
    assert not queue.is_empty
    queue.look_again()
    assert not queue.is_empty
    assert rest(queue, "b") == [(0, 0)]


# Seeds that are dropped


def test_a_seed_that_is_dropped_gives_nothing_more_and_others_go_on():
    queue = ready(2, seeds=(0, 1))
    assert name(queue.next("a")) == (0, 0)
    queue.drop(0)
    assert rest(queue, "a") == [(1, 0), (1, 1)]
    assert queue.is_empty


def test_a_seed_that_is_dropped_before_its_evidence_is_there_gives_nothing_more():
    queue = WorkQueue([0])
    queue.next("a")
    queue.drop(0)
    assert queue.is_empty
    queue = WorkQueue([0])
    queue.next("a")
    queue.prepared(0, requests(0, 2))
    queue.drop(0)
    assert queue.is_empty
    assert queue.next("a") is None


def test_what_was_postponed_of_a_dropped_seed_does_not_come_back():
    queue = ready(2)
    queue.postpone(queue.next("a"))
    queue.drop(0)
    queue.look_again()
    assert queue.next("a") is None
    assert queue.is_empty
    queue = ready(2)
    task = queue.next("a")
    queue.drop(0)
    queue.postpone(task)
    queue.look_again()
    assert queue.next("a") is None


def test_what_a_worker_loses_or_puts_back_of_a_dropped_seed_is_not_given_again():
    queue = ready(3)
    first, second = queue.next("a"), queue.next("b")
    queue.drop(0)
    queue.lost([first], "it ended")
    queue.put_back([second])
    assert queue.next("a") is None
    assert queue.is_empty
