"""The rules every notebook in notebooks/ keeps; CONTRIBUTING.md has them in prose.

A rule takes a notebook and returns one sentence for each place that breaks it. test_notebooks.py applies all
rules to all notebooks, and proves each rule on notebooks made to break it.
"""

import ast
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

import nbformat
from answers import CHECKS  # noqa: F401  (they register themselves)
from IPython.core.inputtransformer2 import TransformerManager

from dhp_lab.notebook.exercises import NOT_ATTEMPTED, REGISTRY

SECTIONS = [
    "What you will do",
    "What you will learn",
    "What you need",
    "Explorer",
    "A question to think about",
    "Exercises",
    "Summary",
    "Further reading",
]
MAX_LINES = 15
MAX_BYTES = 1_500_000
FORBIDDEN_TAGS = {"raises-exception", "nbval-raises-exception", "nbval-skip", "skip-execution"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
SAYS_NOTHING = re.compile(
    r"(?:an? |the )?(?:image|figure|picture|plot|photo|img|output)?|.*\.\w{3,4}", re.IGNORECASE
)
BASE64 = re.compile(r"data:[\w/+.;=-]*base64,[A-Za-z0-9+/=\s]*")
MACHINE_PATH = re.compile(
    r"""(?<![\w.~)\]}>/:-])/(?:[A-Za-z_][\w.-]*/|(?:home|root|tmp|Users)\b)   # /home, /a/b
      | \b[A-Z]:\\\w  |  file://""",
    re.VERBOSE,
)

RULES: dict[str, Callable[[nbformat.NotebookNode], list[str]]] = {}


def rule(function):
    """Add a function to RULES."""
    RULES[function.__name__] = function
    return function


def code_cells(nb):
    """Return (number, cell) for each code cell that holds anything; numbers count all cells from 0."""
    return [(i, cell) for i, cell in enumerate(nb.cells) if cell.cell_type == "code" and cell.source.strip()]


def lesson_folder(nb) -> str | None:
    """Return the folder of dhp_lab.lessons that the notebook's checks come from."""
    found = re.search(
        r"from dhp_lab\.lessons\.(\w+) import [^\n]*\bchecks\b", "\n".join(cell.source for cell in nb.cells)
    )
    return found and found[1]


def lesson_number(nb) -> int | None:
    """Return the number in the title with which the first cell begins, such as 0 for '# 00 · Start here'."""
    title = re.match(r"# (\d\d)\b", nb.cells[0].source if nb.cells else "")
    return int(title[1]) if title else None


def prose(nb) -> str:
    """Return the text of all Markdown cells without fenced code."""
    text = "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def sections(nb) -> list[tuple[str, str]]:
    """Return (title, text) for each second-level heading."""
    parts = re.split(r"^## +(.+?) *$", prose(nb), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def output_texts(cell):
    """Return the text of each output of a cell that is text or HTML; pictures inside HTML are cut out."""
    texts = [output.text for output in cell.outputs if output.output_type == "stream"]
    for output in cell.outputs:
        texts += [text for mime, text in output.get("data", {}).items() if mime.startswith("text/")]
    return [BASE64.sub("", text) for text in texts]


def calls_on(nb, module: str):
    """Return (number, name) for each call `module.name(...)` in the notebook's code."""
    found = []
    for i, cell in code_cells(nb):
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            function = node.func if isinstance(node, ast.Call) else None
            if isinstance(function, ast.Attribute) and getattr(function.value, "id", None) == module:
                found.append((i, function.attr))
    return found


class _ImageTags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.alts.append(dict(attrs).get("alt") or "")
        if tag == "svg":
            self.alts.append(dict(attrs).get("aria-label") or "")


def image_alts(cell) -> list[str]:
    """Return the alternative text of each picture in a Markdown cell or among a code cell's outputs, "" for
    none.
    """
    if cell.cell_type == "markdown":
        return re.findall(r"!\[(.*?)\]\(", cell.source) + _ImageTags(cell.source).alts
    alts = []
    for output in cell.get("outputs", []):
        for mime, data in output.get("data", {}).items():
            if mime.startswith("image/"):
                alts.append(output.metadata.get(mime, {}).get("alt", ""))
            elif mime == "text/html":
                alts += _ImageTags(BASE64.sub("", data)).alts
    return alts


@rule
def valid_format(nb):
    """Valid nbformat 4.5 or later, in which every cell has an id."""
    if (nb.nbformat, nb.nbformat_minor) < (4, 5):
        return [f"nbformat {nb.nbformat}.{nb.nbformat_minor}; cells have ids from 4.5 on"]
    problems = [f"not a valid notebook: {error.message}" for error in nbformat.validator.iter_validate(nb)]
    ids = [cell.get("id") for cell in nb.cells]
    return problems + [f"the cell id {i} stands twice" for i in {i for i in ids if ids.count(i) > 1}]


@rule
def kernel_is_python3(nb):
    """The kernel's name is python3, which every Python environment offers."""
    name = nb.metadata.get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"the kernel is {name!r}, not 'python3'"]


@rule
def executed_in_order(nb):
    """Every code cell was run once, from top to bottom, in a fresh kernel."""
    counts = [cell.execution_count for _, cell in code_cells(nb)]
    return (
        []
        if counts == list(range(1, len(counts) + 1))
        else [f"execution counts are {counts}: run `make notebooks`"]
    )


@rule
def no_error_output(nb):
    """No cell shows an error or writes to the error stream (warnings, progress bars)."""
    return [
        f"cell {i}: {output.get('ename', 'stderr')}: {output.get('evalue', output.get('text', ''))[:200]}"
        for i, cell in code_cells(nb)
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


@rule
def no_cell_is_skipped(nb):
    """No cell is expected to fail and none is left out of a run."""
    tags = [(i, set(cell.metadata.get("tags", ())) & FORBIDDEN_TAGS) for i, cell in code_cells(nb)]
    return [f"cell {i} has the tag {', '.join(found)}" for i, found in tags if found]


@rule
def short_cells(nb):
    """A code cell has 15 lines at most."""
    lengths = [(i, len(cell.source.strip("\n").split("\n"))) for i, cell in code_cells(nb)]
    return [f"cell {i} has {n} lines, more than {MAX_LINES}" for i, n in lengths if n > MAX_LINES]


@rule
def small_file(nb):
    """The file is smaller than 1.5 MB."""
    size = len(json.dumps(nb, indent=1, ensure_ascii=False).encode())
    return [] if size < MAX_BYTES else [f"{size} bytes; the limit is {MAX_BYTES}"]


@rule
def sections_in_order(nb):
    """A numbered title, then the sections every lesson has, each once and in this order."""
    problems = []
    if lesson_number(nb) is None:
        problems.append("the first cell does not begin with a title such as '# 00 · Start here'")
    found = [title for title, _ in sections(nb) if title in SECTIONS]
    if found != SECTIONS:
        return problems + [f"sections are {found}, not {SECTIONS}"]
    text = dict(sections(nb))
    if not re.search(r"\bminutes?\b", text["What you need"]) or "GPU" not in text["What you need"]:
        problems.append(
            "'What you need' does not say how many minutes the lesson takes on a laptop and on a GPU"
        )
    if "<details>" not in text["A question to think about"]:
        problems.append("the answer to the question is not folded into <details>")
    return problems if "$" in prose(nb) else problems + ["there is no equation"]


@rule
def exercises_are_checked(nb):
    """At least two exercises, each a stub whose check was run and says that it is not attempted yet."""
    problems, checks = [], calls_on(nb, "checks")
    lesson = lesson_folder(nb)
    headings = len(re.findall(r"^### Exercise\b", prose(nb), flags=re.MULTILINE))
    if len(checks) < 2 or headings != len(checks):
        problems.append(
            f"{headings} headings '### Exercise ...' and {len(checks)} checks; at least 2, one check for each"
        )
    for i, name in checks:
        if name not in REGISTRY:
            problems.append(f"cell {i}: there is no checks.{name}")
        elif lesson not in (None, REGISTRY[name].lesson):
            problems.append(
                f"cell {i}: checks.{name} belongs to lesson {REGISTRY[name].lesson}, not {lesson}"
            )
        if not any(f"{name}: {NOT_ATTEMPTED}" in text for text in output_texts(nb.cells[i])):
            problems.append(f"cell {i}: checks.{name} does not end in '{NOT_ATTEMPTED}'")
    return problems


@rule
def one_explorer(nb):
    """One call `explorer.explore(...)`, and a static picture by that cell or the next code cell."""
    explorers = [i for i, name in calls_on(nb, "explorer") if name == "explore"]
    if len(explorers) != 1:
        return [f"{len(explorers)} calls of explorer.explore(...) instead of one"]
    nearby = [cell for i, cell in code_cells(nb) if i >= explorers[0]][:2]
    return [] if any(image_alts(cell) for cell in nearby) else ["no static picture under the explorer"]


@rule
def pictures_have_alt_text(nb):
    """Every picture, in Markdown and among the outputs, has an alternative text that says something."""
    return [
        f"cell {i}: a picture's alt text is {alt!r}"
        for i, cell in enumerate(nb.cells)
        for alt in image_alts(cell)
        if SAYS_NOTHING.fullmatch(alt.strip())
    ]


@rule
def widgets_are_valid(nb):
    """Stored widget metadata has a state, and a widget is stored as output only together with its state."""
    stored = nb.metadata.get("widgets", {})
    problems = [
        f"widget metadata {mime!r} without 'state'" for mime, data in stored.items() if "state" not in data
    ]
    state = stored.get(WIDGET_STATE, {}).get("state", {})
    for i, cell in code_cells(nb):
        views = [output.get("data", {}).get(WIDGET_VIEW) for output in cell.outputs]
        if any(view and view["model_id"] not in state for view in views):
            problems.append(f"cell {i}: a widget is stored without its state: run `make notebooks`")
    return problems


@rule
def no_machine_paths(nb):
    """Neither code, nor prose, nor an output names an absolute path."""
    problems = []
    for i, cell in enumerate(nb.cells):
        for text in [BASE64.sub("", cell.source), *(output_texts(cell) if cell.cell_type == "code" else ())]:
            problems += [
                f"cell {i}: {text[m.start() : m.start() + 60]!r}" for m in MACHINE_PATH.finditer(text)
            ]
    return problems
