"""The names that code outside the repository imports stay where they are, wherever the modules move."""

import inspect

import dhp_lab
from dhp_lab.codec.bits import bitstream as home
from dhp_lab.codec.bitstream import BitstreamError, read, write


def test_the_container_is_found_under_its_public_name():
    assert (BitstreamError, read, write) == (home.BitstreamError, home.read, home.write)


def test_the_codec_and_its_creators_are_found():
    from dhp_lab.codec import (
        DiffusionHyperprior,
        create_bk_sdm_compression_model,
        create_diffusion_hyperprior_model,
    )

    def parameters(function):
        return list(inspect.signature(function).parameters)

    wanted = ["N", "M", "diffusion_steps", "schedule", "transmit"]
    assert parameters(create_diffusion_hyperprior_model)[:5] == wanted
    assert parameters(create_bk_sdm_compression_model)[0] == "bk_sdm_path"
    assert {"steps", "gamma", "seed"} <= set(parameters(DiffusionHyperprior.decompress))
    assert callable(DiffusionHyperprior.from_pretrained)


def test_files_are_made_and_read_by_dhp_file():
    assert {"lambda_rate"} <= set(inspect.signature(dhp_lab.dhp_file.encode).parameters)
    wanted = {"steps", "gamma", "seed", "preview"}
    assert wanted <= set(inspect.signature(dhp_lab.dhp_file.decode).parameters)
