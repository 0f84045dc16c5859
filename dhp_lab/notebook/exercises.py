"""Exercises that check themselves: a check tries a reader's function on cases and reports what is wrong.

A check is written as a generator of cases, and `@exercise` turns it into a `Check`:

    @exercise
    def double():
        '''Twice a number.'''
        yield Case({"x": 3}, 6, hint="add x to itself")

What a check returns is shown by the notebook as the cell's output. Expected values are closed forms,
hand-made numbers or measurements, never the result of a second copy of the solution.
"""

from __future__ import annotations

import copy
import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

REGISTRY: dict[str, Check] = {}
NOT_ATTEMPTED = "not attempted yet"
WRONG = "wrong"
CORRECT = "correct"
COLOURS = {NOT_ATTEMPTED: "#57606a", WRONG: "#b35900", CORRECT: "#1a7f37"}
SHOWN_IN_FULL = 8  # numbers of an array that a message lists


@dataclass(frozen=True)
class Case:
    """One call of the reader's function.

    Attributes:
        arguments: the function's arguments by name; they are passed by position, in this order.
        expected: what it should return: a number, an array, a string, or a tuple of these.
        hint: what to think of when this case fails.
        tolerance: the largest error allowed, as a fraction of the largest magnitude in `expected`.
        measure: for an open exercise, from what the function returned to what is compared. With a goal to
            reach it gives the worse of the goal, which is `expected`, and of what it measures; what it cannot
            measure it returns as it is.
    """

    arguments: dict[str, Any]
    expected: Any
    hint: str = ""
    tolerance: float = 1e-4
    measure: Callable[[Any], Any] | None = None


@dataclass(frozen=True, repr=False)
class CheckResult:
    """What a check found.

    Attributes:
        exercise: the exercise's name.
        status: NOT_ATTEMPTED, WRONG or CORRECT.
        message: the task, or the failing case with its hint; empty where the answer is correct.
    """

    exercise: str
    status: str
    message: str = ""

    def __repr__(self) -> str:
        return f"{self.exercise}: {self.status}" + (f". {self.message}" if self.message else "")

    def _repr_html_(self) -> str:
        colour = COLOURS[self.status]
        return (
            f'<div role="status" style="border-left: 4px solid {colour}; padding: 0.3em 0.8em">'
            f'<code>{self.exercise}</code>: <b style="color: {colour}">{self.status}</b>'
            f'<div style="white-space: pre-wrap">{html.escape(self.message)}</div></div>'
        )


@dataclass(frozen=True)
class Check:
    """The check of one exercise; call it with the reader's function.

    Attributes:
        name: of the exercise.
        lesson: the folder of the lesson it belongs to.
        task: what the function should return.
        cases: gives the cases anew at each call.
    """

    name: str
    lesson: str
    task: str
    cases: Callable[[], Iterator[Case]]

    def __call__(self, answer: Callable) -> CheckResult:
        """Try `answer` on every case and stop at the first that fails."""
        if not callable(answer):
            message = "Give the check your function itself, without calling it: "
            return CheckResult(self.name, WRONG, f"{message}checks.{self.name}(my_function)")
        for number, case in enumerate(self.cases()):
            try:
                result = _call(answer, case)
            except Exception as error:  # noqa: BLE001  (the reader's mistake, whatever it is, is reported)
                return self._wrong(case, f"your function raised {type(error).__name__}: {error}")
            if result is None and number == 0:
                return CheckResult(self.name, NOT_ATTEMPTED, f"The task: {self.task}")
            if not _equal(result, case.expected, case.tolerance):
                what = "returned" if case.measure is None or _numbers(result) is None else "reaches"
                return self._wrong(case, f"your function {what} {_show(result)}")
        return CheckResult(self.name, CORRECT)

    def _wrong(self, case: Case, what: str) -> CheckResult:
        inputs = ", ".join(f"{name}={_show(value)}" for name, value in case.arguments.items())
        lines = [f"For {inputs}", what, f"expected: {_show(case.expected)}"]
        if case.hint:
            lines.append(f"Hint: {case.hint}")
        return CheckResult(self.name, WRONG, "\n".join(lines))


def exercise(cases: Callable[[], Iterator[Case]]) -> Check:
    """Turn a generator of cases into a registered `Check` of the lesson in whose folder it stands.

    Args:
        cases: its name is the exercise's, its docstring the task.

    Raises:
        ValueError: an exercise of this name exists already.
    """
    name = cases.__name__
    if name in REGISTRY:
        raise ValueError(f"there is an exercise {name!r} already; choose another name")
    folder = cases.__module__.split(".")[-2:][0]
    task = " ".join(cases.__doc__.split())  # in one line, however the source breaks it
    REGISTRY[name] = Check(name, folder, task, cases)
    return REGISTRY[name]


def _call(answer: Callable, case: Case) -> Any:
    """What the reader's function returns, or what is measured of it; None where it raises
    NotImplementedError, as a stub may.
    """
    arguments = copy.deepcopy(list(case.arguments.values()))
    try:
        with np.errstate(all="ignore"):
            result = answer(*arguments)
    except NotImplementedError:
        return None
    return result if result is None or case.measure is None else case.measure(result)


def _numbers(value: Any) -> np.ndarray | None:
    """The value as an array of numbers, or None when it is not made of numbers."""
    if hasattr(value, "detach"):  # a torch tensor, of any dtype, on any device
        value = value.detach().tolist()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "buifc" else None


def _equal(result: Any, expected: Any, tolerance: float) -> bool:
    """Whether a result is what was expected: of the same shape, and each number within the tolerance."""
    if isinstance(expected, tuple):
        if not isinstance(result, (tuple, list)) or len(result) != len(expected):
            return False
        pairs = zip(result, expected, strict=True)
        return all(_equal(one, other, tolerance) for one, other in pairs)
    array, target = _numbers(result), _numbers(expected)
    if target is None:
        return type(result) is type(expected) and result == expected
    if array is None or array.shape != target.shape:
        return False
    kind = complex if "c" in (array.dtype.kind, target.dtype.kind) else float
    array, target = array.astype(kind), target.astype(kind)
    magnitude = np.max(np.abs(target[np.isfinite(target)]), initial=0.0) or 1.0
    return np.allclose(array, target, rtol=0.0, atol=tolerance * magnitude, equal_nan=True)


def _show(value: Any) -> str:
    """A short text for a number, an array or anything else."""
    array = _numbers(value)
    if array is None and isinstance(value, tuple):
        return f"({', '.join(map(_show, value))})"
    if array is None:
        return repr(value)
    if array.ndim == 0:
        return f"{array.item():.6g}"
    kind = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    if array.size <= SHOWN_IN_FULL:
        return f"{array.round(5).tolist()} ({kind})"
    return f"{kind} of shape {array.shape} from {array.min():.5g} to {array.max():.5g}"
