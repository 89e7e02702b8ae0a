"""How long the supervisor of the embedded server waits before it starts it again."""

from service.embedded.supervisor import next_backoff_s


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [0.0]
    while len(pauses) < 10:
        pauses.append(next_backoff_s(pauses[-1], ran_s=1.0, longest_s=10.0))
    assert pauses[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_launch_that_lasted_starts_over() -> None:
    assert next_backoff_s(10.0, ran_s=21.0, longest_s=10.0) == 0.1
    assert next_backoff_s(10.0, ran_s=19.0, longest_s=10.0) == 10.0
    assert next_backoff_s(0.0, ran_s=1.0, longest_s=0.05) == 0.05
