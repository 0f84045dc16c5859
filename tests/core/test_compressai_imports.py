"""dhp_lab.core.compressai_imports: what is imported of CompressAI, and that the rest is whole when it is
wanted. Each case is a fresh process, because it is about its first imports.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("compressai.datasets", "compressai.zoo", "scipy.stats._stats_py", "torch_geometric", "transformers")
START = "import sys, dhp_lab.core.compressai_imports as ours\n"
CONTENTS = """
import json, sys, compressai
found = {}
for name, module in sys.modules.items():
    if name.split(".")[0] == "compressai":
        assert module.__spec__.name == name
        kinds = [type(module).__name__, type(module.__spec__.loader).__name__]
        found[name] = [*kinds, sorted(vars(module))]
print(json.dumps(found))
"""
HIDE_ONCE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "compressai.latent_codecs.base":
            sys.meta_path.remove(self)
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
"""


def fresh(code: str) -> str:
    """What a new Python prints that runs this code."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents_of(printed: str) -> dict:
    """The names in each module of CompressAI, but those that Python adds as it goes along."""
    found = json.loads(printed.splitlines()[-1])
    return {name: [*kinds, set(names) - {"__warningregistry__"}] for name, (*kinds, names) in found.items()}


@pytest.fixture(scope="module")
def plain() -> dict:
    """CompressAI after ``import compressai`` alone."""
    return contents_of(fresh("import dhp_lab, compressai" + CONTENTS))


@pytest.mark.slow
def test_the_codec_is_imported_without_what_it_does_not_use():
    loaded = fresh("import sys, dhp_lab.codec.model\nprint(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded) and {"compressai.models.base", "compressai.ans"} <= set(loaded)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wanted",
    [
        "import compressai.datasets.image, compressai.zoo",
        "from compressai.models import ScaleHyperprior",
    ],
)
def test_whatever_else_is_wanted_makes_it_the_whole_package(plain, wanted):
    same = "\nassert ours.CompressionModel is sys.modules['compressai.models'].CompressionModel"
    assert contents_of(fresh(START + wanted + same + CONTENTS)) == plain


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        pytest.param("import dhp_lab, compressai\n", id="imported before"),
        pytest.param(HIDE_ONCE, id="another layout"),
    ],
)
def test_otherwise_it_is_the_plain_import(plain, before):
    assert contents_of(fresh(before + START + CONTENTS)) == plain


@pytest.mark.slow
def test_a_package_that_cannot_be_completed_stays_as_it_was_and_is_tried_again():
    fresh(
        START
        + "import compressai, compressai.models as models\n"
        + "sys.modules['torch_geometric'] = None\n"
        + "for _ in range(2):\n"
        + "    try:\n        models.ScaleHyperprior\n"
        + "    except ImportError as error:\n        assert 'torch_geometric' in str(error)\n"
        + "    else:\n        raise AssertionError\n"
        + "assert ours.CompressionModel().__class__ is models.CompressionModel\n"
        + "del sys.modules['torch_geometric']\n"
        + "assert models.ScaleHyperprior is compressai.zoo.image.ScaleHyperprior\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "wanted",
    [
        "import scipy; norm = scipy.stats.norm",
        "import scipy.stats.qmc as qmc, scipy; assert qmc is scipy.stats.qmc; from scipy.stats import norm",
    ],
)
def test_scipys_statistics_are_loaded_at_their_first_use(wanted):
    fresh(f"{START}assert 'scipy.stats._stats_py' not in sys.modules\n{wanted}\nassert norm.ppf(0.5) == 0")


@pytest.mark.slow
def test_compressais_evaluation_runs_on_the_codec():
    fresh(
        "import torch\n"
        "from dhp_lab.codec.create import create_diffusion_hyperprior_model\n"
        "model = create_diffusion_hyperprior_model(N=8, M=16).eval()\n"
        "from compressai.utils.eval_model.__main__ import inference\n"
        "assert inference(model, torch.rand(3, 192, 192))['bpp'] > 0\n"
    )
