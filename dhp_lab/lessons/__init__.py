"""One folder a lesson, named after its subject: its figures, explorer and exercise checks; no lesson imports
another.
"""
