"""Answers to the lessons' exercises, one module for each lesson.

RIGHT     {exercise: a right answer}
MISTAKES  {exercise: [(a wrong answer that readers are likely to give, words that its message holds), ...]}
"""

import importlib
import pkgutil

from dhp_lab import lessons

FOLDERS = sorted(info.name for info in pkgutil.iter_modules(lessons.__path__))
CHECKS = {folder: importlib.import_module(f"dhp_lab.lessons.{folder}.checks") for folder in FOLDERS}
ANSWERS = {folder: importlib.import_module(f"answers.{folder}") for folder in FOLDERS}
RIGHT = {name: answer for answers in ANSWERS.values() for name, answer in answers.RIGHT.items()}
MISTAKES = {name: wrong for answers in ANSWERS.values() for name, wrong in answers.MISTAKES.items()}
