"""The codec with the VAE and the U-Net of a Stable Diffusion folder."""
