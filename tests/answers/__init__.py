"""Answers to the lessons' exercises, one module for each lesson.

    RIGHT     {exercise: a right answer}
    MISTAKES  {exercise: [(a wrong answer that a reader is likely to give, words that the message must hold), ...]}
"""

from answers import lesson_00, lesson_01, lesson_02, lesson_03, lesson_04, lesson_05, lesson_06, lesson_07, lesson_08, lesson_09, lesson_10

LESSONS = (lesson_00, lesson_01, lesson_02, lesson_03, lesson_04, lesson_05, lesson_06, lesson_07, lesson_08, lesson_09, lesson_10)
RIGHT = {name: answer for lesson in LESSONS for name, answer in lesson.RIGHT.items()}
MISTAKES = {name: wrong for lesson in LESSONS for name, wrong in lesson.MISTAKES.items()}
