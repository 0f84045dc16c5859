"""Latent diffusion: first stages, the U-Net's pipeline and its folder, blocks removed."""
