"""Open exercises: a case with a goal measures what the reader's function returned."""

from dhp_lab.notebook.exercises import CORRECT, NOT_ATTEMPTED, WRONG, Case, Check


def at_most(goal):
    """A case that doubles its argument, and is reached by 2 * goal or less."""

    def measure(result):
        return max(goal, result / 2) if isinstance(result, float) else result

    return Case({"x": 1.0}, goal, hint="smaller", measure=measure, tolerance=1e-9)


def check_of(case):
    return Check("example", "ddpm", "An example.", lambda: iter([case]))


def test_a_goal_is_reached_by_less():
    check = check_of(at_most(3.0))
    assert check(lambda x: 6.0 * x).status == CORRECT
    assert check(lambda x: 1.0 * x).status == CORRECT


def test_the_message_says_by_how_much_it_is_missed():
    result = check_of(at_most(3.0))(lambda x: 6.5 * x)
    assert result.status == WRONG
    assert "your function reaches 3.25\nexpected: 3\nHint: smaller" in result.message


def test_what_cannot_be_measured_is_shown_as_it_is():
    check = check_of(at_most(3.0))
    assert "your function returned '?'" in check(lambda x: "?").message
    assert check(lambda x: None).status == NOT_ATTEMPTED
